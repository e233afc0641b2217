from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from ostler_http.api.request import BodyLimits, Departures, Request

SHOW = "/topics/lamp/methods/show"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"name": "a"} {}', 400),
        (b'{"name": "\xff"}', 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"name": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"name": ' + b"[" * 70 + b"]" * 70 + b"}", 400),
        (b'{"name": ' + b"[" * 60 + b"]" * 60 + b"}", 422),
        (b'{"name": "a", "level": 99999999999999999999999999}', 422),
        (b'{"name": "a", "level": 1e999}', 400),
        (b'{"name": "a", "level": 18446744073709551615}', 200),
        (b'{"name": "a\\u0000\\n"}', 200),
        (b'{"name": "a", "": 1}', 422),
        (b'{"name": "a", "name": "b"}', 200),
    ],
)
def test_a_body_that_is_no_object_of_arguments_is_refused(api, body, status):
    reply = api.request("POST", SHOW, body)
    assert reply.status == status, reply.body


def test_a_body_without_content_has_no_arguments(api):
    assert api.post("/topics/lamp/methods/destroy").json() is None


def test_a_body_above_the_limit_is_refused_by_its_length_and_by_its_size(make_api):
    with make_api(max_body_size=100) as api:
        reply = api.request("POST", SHOW, b"{}", headers={"content-length": "101"})
        assert (reply.status, reply.json()["details"]["limit"]) == (413, 100)
        assert api.request("POST", SHOW, b" " * 101).status == 413
        assert api.request("POST", SHOW, b'{"name":"a"}' + b" " * 88).status == 200


def test_a_body_of_another_type_is_refused(api):
    for headers in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}, {"content-type": ""}):
        reply = api.request("POST", SHOW, b'{"name":"a"}', headers=headers)
        assert reply.status == 415
    assert api.request("POST", SHOW, b'{"name":"a"}', headers={"content-type": "Application/JSON; x=y"}).status == 200


@pytest.mark.parametrize("query", ["name=%ff", "&".join(["name=a"] * 101), "name=a&nosuch=1", "nam%65=a&level=x"])
def test_a_query_that_cannot_be_read_or_is_not_known_is_refused(api, query):
    assert api.request("GET", SHOW, query=query).status in (400, 422)


def test_a_name_that_is_not_known_is_told_with_those_that_are(api):
    reply = api.get("/topics?x=1")
    assert (reply.status, reply.json()["hint"]) == (400, "it takes none")
    assert api.get("/operations?stat=x").json()["hint"] == "it takes: topic, state, mine, host, limit, cursor"


def test_a_client_that_leaves_while_it_sends_gets_no_answer(api, run):
    async def leave():
        exchange = api.open("POST", SHOW)
        exchange.incoming.get_nowait()
        exchange.incoming.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
        exchange.leave()
        await exchange.task
        return exchange.outgoing.empty()

    assert run(leave())


def test_a_path_that_is_not_there_or_not_complete_is_not_found(api):
    assert api.get("/statu").json()["hint"] == "did you mean status?"
    for path in ("/topics/lamp/methods/show/", "/topics//methods/show", "/operations//cancel", "/a" * 500, "/%00"):
        assert api.get(path).status in (404, 422), path
    assert api.get("/topics/lamp/methods/show/nothing").status == 404


def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(api):
    for method in ("PUT", "DELETE", "BREW"):
        reply = api.request(method, SHOW)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")


def test_head_has_the_headers_of_get_and_no_body(api):
    got, head = api.get("/topics"), api.request("HEAD", "/topics")
    assert (head.status, head.body) == (200, b"")
    assert head.headers == got.headers


def test_a_read_that_the_client_has_is_not_sent_again(api):
    tag = api.get("/topics").headers["etag"]
    for condition in (tag, f'"x", W/{tag}', "*"):
        reply = api.get("/topics", headers={"if-none-match": condition})
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", tag)
    assert api.get("/topics", headers={"if-none-match": '"other"'}).status == 200


def test_answers_are_not_stored_by_others_nor_taken_for_something_else(api):
    headers = api.get("/topics").headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-cache, private", "nosniff")


def test_an_error_of_the_api_itself_is_logged_and_not_shown(api, caplog):
    async def broken(_request):
        raise KeyError("inside")

    api.application.routes.add("GET", "/broken", broken)
    reply = api.get("/broken")
    assert (reply.status, reply.json()["detail"]) == (500, "the API failed")
    assert "inside" in caplog.text


def test_a_web_socket_is_refused(api, run):
    async def connect():
        sent = []

        async def send(message):
            sent.append(message)

        await api.call({"type": "websocket"}, None, send)
        return sent

    assert run(connect())[0]["type"] == "websocket.close"


def test_a_refused_request_is_read_to_its_end_before_it_is_answered(api, run):
    async def ask(path, **more):
        exchange = api.open("POST", path, {"name": "a"}, {"content-length": "13"}, **more)
        await exchange.head()
        await exchange.task
        return exchange.status, exchange.incoming.empty()

    assert run(ask("/topics/lamp/methods/nosuch")) == (404, True)
    assert run(ask("/nosuch")) == (404, True)
    assert run(ask(SHOW, role="anonymous")) == (401, True)


def test_a_page_of_another_origin_cannot_use_the_certificate_of_its_reader(api, run):
    async def ask(name, origin, method="POST"):
        headers = {"origin": origin, "host": "ostler.example:8443"}
        scope = api.scope(
            method, "/topics/lamp/methods/count", {**headers, "accept": "application/x-ndjson"}, query="to=0"
        )
        known = scope["ostler.caller"]
        exchange = api.exchange({**scope, "ostler.caller": type(known)(name, known.role, known.peer)})
        await exchange.head()
        await exchange.task
        return exchange.status

    assert run(ask("cert:alice", "https://evil.example")) == 403
    assert run(ask("cert:alice", "null")) == 403
    assert run(ask("cert:alice", "https://evil.example", "GET")) == 200
    assert run(ask("cert:alice", "https://ostler.example:8443")) == 400  # it comes as far as the query
    assert run(ask("token:ci", "https://evil.example")) == 400


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", "text/event-stream"),
        ("application/x-ndjson, text/event-stream", "text/event-stream"),
        ("application/x-ndjson, text/event-stream;q=0.5", "application/x-ndjson"),
        ("application/json;q=0.5, application/x-ndjson;q=0.7", "application/x-ndjson"),
        ("application/json, application/x-ndjson", "application/x-ndjson"),
        ("application/json, application/x-ndjson; q=0.9", "application/json"),
        ("text/event-stream;q=0", "application/json"),
        ("text/event-stream;q=nonsense", "text/event-stream"),
        ("text/html, */*", "application/json"),
        (",;,;;q=", "application/json"),
    ],
)
def test_a_call_is_answered_in_the_form_that_is_liked_best(api, accept, kind):
    reply = api.post(SHOW, {"name": "a"}, headers={"accept": accept})
    assert (reply.status, reply.headers["content-type"]) == (200, kind)


def test_a_method_that_yields_is_sent_as_any_stream_that_is_not_excluded(api):
    count = "/topics/lamp/methods/count?to=1"
    wanted = {"accept": "application/json, application/x-ndjson;q=0.1"}
    assert api.get(count, headers=wanted).headers["content-type"] == "application/x-ndjson"
    assert api.get(count, headers={"accept": "application/x-ndjson;q=0"}).status == 406


def test_headers_on_several_lines_count_all(api):
    assert api.get("/topics", headers=[("if-none-match", "*"), ("if-none-match", '"x"')]).status == 200
    tag = api.get("/topics").headers["etag"]
    assert api.get("/topics", headers=[("if-none-match", tag), ("if-none-match", '"x"')]).status == 304
    accepts = [("accept", "application/x-ndjson"), ("accept", "text/html")]
    assert api.post(SHOW, {"name": "a"}, headers=accepts).headers["content-type"] == "application/x-ndjson"
    assert api.get(f"{SHOW}?name=a", headers=[("request-timeout", "5"), ("request-timeout", "9")]).status == 400


@pytest.mark.parametrize("text", ["1_0", "1e3", "+5", "0x10", "5s", "", " ", "604800.1", "9" * 400])
def test_a_deadline_is_written_in_digits(api, text):
    assert api.get(f"{SHOW}?name=a", headers={"request-timeout": text}).status == 400


@pytest.mark.parametrize("text", ["5", " 5 ", "0.5", ".5", "5.", "604800"])
def test_a_deadline_may_have_a_fraction(api, text):
    assert api.get(f"{SHOW}?name=a", headers={"request-timeout": text}).status == 200


def test_all_steps_of_a_request_share_its_deadline(run):
    async def ask():
        scope = {"method": "GET", "path": "/", "headers": [(b"request-timeout", b"0.05")]}
        request = Request(scope, None, None, BodyLimits(), Departures())
        first = request.timeout(60)
        await asyncio.sleep(0.06)  # what is measured is that time goes by
        return first, request.timeout(None)

    first, second = run(ask())
    assert first == pytest.approx(0.05)
    assert 0 < second < 0.01


def test_what_is_no_list_is_given_once(api):
    for path in (f"{SHOW}?name=a&name=a", f"{SHOW}?name=a&host=x&host=y", "/operations?limit=1&limit=2"):
        reply = api.get(path)
        assert (reply.status, "more than once" in reply.json()["detail"]) == (400, True)


def test_the_methods_of_a_path_are_told(api):
    reply = api.request("OPTIONS", SHOW, role="anonymous")
    assert (reply.status, reply.headers["allow"], reply.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    assert "content-type" not in reply.headers
    assert api.request("OPTIONS", "/nosuch").status == 404
    assert api.request("PUT", "/topics").headers["allow"] == "GET, HEAD, OPTIONS"


def test_arguments_in_the_body_of_a_get_are_not_silently_left_out(api):
    reply = api.request("GET", f"{SHOW}?name=a", b'{"level": 5}', headers={"content-length": "12"})
    assert (reply.status, "query" in reply.json()["detail"]) == (400, True)


def test_the_pages_of_other_origins_may_send_and_read_each_header_of_the_api():
    from ostler_http.filters import cors

    page = (Path(__file__).parents[4] / "docs" / "http.md").read_text(encoding="utf-8")
    table = page.partition("| of the request |")[2].partition("\n\n")[0]
    sent = {name.lower() for name in re.findall(r"^\| `([\w-]+)", table, re.MULTILINE)} - {"accept"}
    assert sent <= {name.lower() for name in cors.CorsOptions.model_fields["headers"].default}
    documented = {"ETag", "Link", "Location", "Preference-Applied", "Retry-After", "WWW-Authenticate", "X-Request-Id"}
    assert documented <= set(cors.EXPOSED_HEADERS)
