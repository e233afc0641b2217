"""Buttons: what is done, what is asked first, and what is refused."""

from __future__ import annotations

import pytest

from ostler import Conflict
from ostler_http.ui.actions import ACTIONS, filled


def test_a_button_calls_its_method_as_the_caller_and_says_how_it_ended(admin, gateway):
    done = admin.do("periodic.run", arg_service="volume", arg_task="check")
    assert (done.status_code, done.headers["location"]) == (303, "/services")
    assert gateway.changes() == [("token:admin", "ostler", "periodic_run", {"service": "volume", "task": "check"})]
    assert "check of volume runs" in admin.get("/services").text
    assert "check of volume runs" not in admin.get("/services").text, "a notice is said once"


@pytest.mark.parametrize("csrf", ["", "wrong", "0" * 64])
def test_a_form_without_its_token_does_nothing(admin, gateway, csrf):
    refused = admin.do("periodic.run", csrf=csrf, arg_service="volume", arg_task="check")
    assert refused.status_code == 403
    assert gateway.changes() == []


@pytest.mark.parametrize("origin", ["https://evil.example", "http://node1:9090", "null", ""])
def test_a_form_of_another_site_does_nothing_even_with_the_token(admin, gateway, origin):
    refused = admin.do("periodic.run", origin=origin, arg_service="volume", arg_task="check")
    assert refused.status_code == 403
    assert gateway.changes() == []


def test_the_token_of_one_session_does_not_count_in_another(admin, make_site, gateway):
    csrf = admin.csrf()
    admin.browser.cookies.clear()
    admin.log_in()
    assert admin.do("periodic.run", csrf=csrf, arg_service="a", arg_task="b").status_code == 403


def test_nothing_is_done_without_a_session_and_that_is_said(site, gateway):
    refused = site.do("periodic.run", csrf="x", arg_service="a", arg_task="b")
    assert refused.status_code == 401
    assert "The session has ended: nothing was done" in refused.text
    assert site.get("/do").status_code == 405
    assert site.ask("service.stop", arg_topic="x").headers["location"].startswith("/login?next=/ask%3Faction")
    assert gateway.calls == []


def test_what_cannot_be_undone_is_asked_first(admin, gateway, field):
    question = admin.do("service.stop", arg_topic="volume", arg_on_host="")
    assert question.status_code == 200
    assert "Stop volume?" in question.text
    assert gateway.changes() == []
    csrf = field(question.text, "csrf")
    admin.do("service.stop", csrf=csrf, confirmed="yes", arg_topic="volume", arg_on_host="", arg_wait="")
    assert gateway.changes() == [("token:admin", "ostler", "service_stop", {"topic": "volume", "on_host": ""})]


def test_a_question_has_an_address_so_that_the_way_back_leads_to_it(admin, gateway, field):
    button = next(each for each in admin.get("/services/x").text.split("<form") if "service.stop" in each)
    assert 'method="get" action="/ask"' in button
    question = admin.ask("service.stop", back="/services/volume", arg_topic="volume", arg_on_host="")
    assert question.status_code == 200
    assert "Stop volume?" in question.text
    assert field(question.text, "back") == "/services/volume"
    assert field(question.text, "arg.topic") == "volume"
    assert gateway.changes() == []


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example/", "javascript:alert(1)"])
def test_a_question_leads_back_to_no_other_host(admin, back):
    assert "evil" not in admin.ask("service.stop", back=back, arg_topic="volume").text
    assert "javascript" not in admin.ask("service.stop", back=back, arg_topic="volume").text


@pytest.mark.parametrize(("action", "status"), [("periodic.run", 422), ("nothing", 404), ("", 404)])
def test_what_asks_nothing_has_no_question(admin, gateway, action, status):
    assert admin.ask(action, arg_service="a", arg_task="b").status_code == status
    assert gateway.changes() == []


def test_a_question_is_for_who_may_do_it(site, gateway):
    site.log_in("viewer-secret")
    refused = site.ask("service.stop", arg_topic="volume")
    assert refused.status_code == 403
    assert "<h1>Not permitted</h1>" in refused.text


def test_an_answer_that_is_sent_twice_is_one_request_and_the_next_is_another(admin, gateway, field):
    question = admin.ask("service.disable", arg_topic="volume", arg_on_host="").text
    sent = {"confirmed": "yes", "once": field(question, "once"), "arg_topic": "volume", "arg_reason": "disks"}
    admin.do("service.disable", **sent)
    admin.do("service.disable", **sent)
    other = field(admin.ask("service.disable", arg_topic="volume").text, "once")
    admin.do("service.disable", **{**sent, "once": other})
    first, second, third = gateway.request_ids
    assert first == second != third
    assert sent["once"] not in first, "who sends a form could choose the id of another request"


def test_the_same_number_of_two_sessions_makes_two_requests(admin, gateway):
    sent = {"confirmed": "yes", "once": "7", "arg_topic": "volume", "arg_reason": "disks"}
    admin.do("service.disable", **sent)
    admin.browser.cookies.clear()
    admin.log_in()
    admin.do("service.disable", **sent)
    first, second = gateway.request_ids
    assert first != second


def test_what_is_required_is_asked_again_and_what_was_typed_stays(admin, gateway):
    again = admin.do("service.disable", confirmed="yes", arg_topic="volume", arg_reason="  ")
    assert again.status_code == 422
    assert "Reason is required" in again.text
    assert 'name="arg.topic" value="volume"' in again.text
    assert gateway.changes() == []


def test_an_error_keeps_the_form_with_what_was_typed(admin, gateway):
    gateway.answers["service_disable"] = Conflict("it is gone", hint="look again")
    again = admin.do("service.disable", confirmed="yes", arg_topic="volume", arg_reason="disks")
    assert again.status_code == 409, "what an alert is to count is a failure of ours"
    assert "it is gone" in again.text
    assert 'value="disks"' in again.text


def test_an_error_of_a_button_without_a_form_is_said_where_it_was_pressed(admin, gateway):
    gateway.answers["periodic_run"] = Conflict("it runs already", hint="wait")
    assert admin.do("periodic.run", arg_service="a", arg_task="b").status_code == 303
    assert "it runs already" in admin.get("/services").text


def test_a_reload_that_was_undone_is_no_success(admin, gateway):
    gateway.answers["reload"] = {"ok": False, "summary": "undone: driver fast failed"}
    admin.do("reload", confirmed="yes")
    assert 'class="notice bad"' in admin.get("/services").text


@pytest.mark.parametrize("action", ["service.freeze", "reload", "driver.abandon", "service.disable"])
def test_what_is_not_offered_is_refused_if_it_is_tried(site, gateway, action):
    site.log_in("viewer-secret")
    csrf = site.parts.form_tokens.token(f"session {site.browser.cookies['ostler-session-8080']}")
    refused = site.do(action, csrf=csrf, confirmed="yes", arg_topic="volume", arg_reason="x")
    assert refused.status_code == 403
    assert gateway.changes() == []


@pytest.mark.parametrize("action", ["", "nothing", "volumes/x/y", "../status", "status"])
def test_an_action_that_does_not_exist_is_refused(admin, gateway, action):
    assert admin.do(action).status_code == 404
    assert gateway.changes() == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("application/x-www-form-urlencoded", b"a=%ff"),
        ("application/x-www-form-urlencoded", b"x" * 70_000),
        ("application/x-www-form-urlencoded", b"a=1&" * 200),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("", b""),
    ],
)
def test_a_form_that_is_none_or_too_large_is_refused(admin, kind, body):
    headers = {"origin": "http://node1:8080", **({"content-type": kind} if kind else {})}
    for path in ("/do", "/login", "/logout"):
        assert admin.browser.post(path, content=body, headers=headers).status_code == 422


def test_every_action_is_complete():
    for name, action in ACTIONS.items():
        assert action.done or action.submit, name
        assert action.question or not action.danger, f"{name} is dangerous and does not ask"
        assert action.label.endswith("…") == action.asks, f"{name}: … says that something is asked"


def test_a_sentence_is_filled_without_being_interpreted():
    assert filled("stop {topic} of {x}", {"topic": "{host} %s {0}", "host": "b"}) == "stop b %s {0} of {x}"


@pytest.mark.parametrize(
    ("topic", "host", "expected"),
    [("web", "", True), ("web", "node1", True), ("web", "node2", False), ("volume", "", False)],
)
def test_a_stop_is_begun_and_not_waited_for(admin, gateway, topic, host, expected):
    admin.do("service.stop", confirmed="yes", arg_topic=topic, arg_on_host=host)
    assert gateway.cast == ["service_stop"]
    assert [call[2] for call in gateway.changes()] == ["service_stop"]
    page = admin.get("/services").text
    assert f"{topic} is being stopped" in page
    assert ("ends with it" in page) is expected
