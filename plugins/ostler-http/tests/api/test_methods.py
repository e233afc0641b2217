from __future__ import annotations

import asyncio
import base64

import pytest

CALL = "/topics/lamp/methods/show"
SWITCH = "/topics/lamp/methods/switch"


def test_a_post_calls_a_method_with_the_json_object_as_its_arguments(api):
    reply = api.post(CALL, {"name": "a", "level": 3})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() | {"left": 0} == {
        "name": "a", "level": 3, "tags": None, "request_id": "r-1", "who": "token:test-admin", "trace": "", "left": 0,
    }  # fmt: skip


def test_a_get_reads_with_arguments_in_the_query(api):
    reply = api.get(f"{CALL}?name=a%20b&level=7&tags=x&tags=y")
    assert [reply.json()[name] for name in ("name", "level", "tags")] == ["a b", 7, ["x", "y"]]


def test_a_list_in_a_query_may_have_one_element_or_be_json(api):
    assert api.get(f"{CALL}?name=a&tags=x").json()["tags"] == ["x"]
    assert api.get(f'{CALL}?name=a&tags=["x","y"]').json()["tags"] == ["x", "y"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("names=a&names=[b", ["a", "[b"]),
        ("names=[a&names=b", ["[a", "b"]),
        ("names=[b", ["[b"]),
        ('names=["a"]&names=b', ['["a"]', "b"]),
        ("names=[]", []),
    ],
)
def test_a_list_in_a_query_is_told_from_texts_that_look_like_one(api, query, names):
    assert api.get("/topics/lamp/methods/grid", query=query).json()["names"] == names


def test_a_list_that_is_given_once_as_json_and_once_not_is_refused(api):
    for query in ('rows=[["a"]]&rows=b', 'rows=b&rows=[["a"]]', "rows=b"):
        assert api.get("/topics/lamp/methods/grid", query=query).status == 422
    assert api.get("/topics/lamp/methods/grid", query='rows=[["a"]]').json()["rows"] == [["a"]]


def test_an_argument_called_host_is_not_taken_for_the_host_that_is_asked(api):
    path = "/topics/lamp/methods/seen_by"
    for query in ("?host=nowhere", "?host=testhost", ""):
        reply = api.get(path + query)
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert api.post(path, {"host": "nowhere"}).json() == "nowhere"


def test_a_get_of_a_method_that_changes_something_is_refused(api):
    reply = api.get(f"{SWITCH}?name=a")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert api.host.manager("lamp").calls == []


def test_a_post_is_strict_about_types(api):
    reply = api.post(CALL, {"name": "a", "level": "3"})
    assert (reply.status, reply.json()["error"]) == (422, "ostler.InvalidArguments")
    assert reply.json()["details"]["argument"] == "level"


def test_bytes_are_base64_in_both_directions(api):
    image = base64.b64encode(b"\x00\xff").decode()
    assert api.post(SWITCH, {"name": "a", "image": image}).json()["image"] == image
    nested = {"name": "a", "lamp": {"name": "b", "inner": [{"name": "c", "image": image}], "image": image}}
    assert api.post(SWITCH, nested).json()["image"] == image


def test_bytes_that_are_no_base64_are_refused(api):
    reply = api.post(SWITCH, {"name": "a", "image": "?"})
    assert (reply.status, reply.json()["error"]) == (422, "ostler.InvalidArguments")


def test_moments_in_results_of_methods_are_numbers_as_they_came(api):
    assert api.post(SWITCH, {"name": "a"}).json()["lit_at"] == 1800000000.5


def test_the_role_of_the_caller_counts_and_not_that_of_the_daemon(api):
    assert api.get(f"{CALL}?name=a", role="viewer").json()["who"] == "token:test-viewer"
    reply = api.post(SWITCH, {"name": "a"}, role="viewer")
    assert (reply.status, reply.json()["details"]["needs"]) == (403, "operator")


def test_who_is_not_known_is_asked_to_say_so(api):
    for path in (f"{CALL}?name=a", "/", "/topics", "/events", "/nothing/here"):
        reply = api.get(path, role="anonymous")
        if path == "/nothing/here":
            assert reply.status == 404
        else:
            assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Bearer realm="ostler"')


def test_a_deadline_is_passed_on_and_ends_the_call(api):
    assert 5 < api.get(f"{CALL}?name=a", headers={"request-timeout": "9"}).json()["left"] <= 9
    reply = api.get("/topics/lamp/methods/wait", headers={"request-timeout": "0.05"})
    assert (reply.status, reply.json()["error"]) == (504, "ostler.DeadlineExceeded")


def test_a_deadline_that_is_no_number_of_seconds_is_refused(api):
    for text in ("soon", "0", "-1", "nan", "inf", "1e9"):
        assert api.get(f"{CALL}?name=a", headers={"request-timeout": text}).status == 400


def test_the_trace_context_is_passed_on(api):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert api.get(f"{CALL}?name=a", headers={"traceparent": trace}).json()["trace"].startswith(trace[:35])


def test_a_client_that_leaves_cancels_its_request(api, run):
    manager = api.host.manager("lamp")

    async def leave():
        exchange = api.open("GET", "/topics/lamp/methods/wait")
        await asyncio.to_thread(manager.started.wait, 10)
        exchange.leave()
        await exchange.task
        return exchange.outgoing.empty()

    assert run(leave())
    assert manager.cancelled.wait(10)


def test_a_repeated_request_with_an_idempotency_key_runs_once(api):
    key = {"idempotency-key": "k1"}
    assert [api.post(SWITCH, {"name": "a"}, headers=key).status for _ in range(3)] == [200, 200, 200]
    assert api.host.manager("lamp").calls == ["a"]
    reply = api.post(SWITCH, {"name": "b"}, headers=key)
    assert (reply.status, reply.json()["error"]) == (409, "ostler.Conflict")


def test_idempotency_keys_of_two_callers_do_not_meet(api):
    for role in ("operator", "admin"):
        assert api.post(SWITCH, {"name": role}, headers={"idempotency-key": "k"}, role=role).json()["name"] == role
        submitted = api.post(
            "/topics/lamp/methods/build/submit", {"name": role}, headers={"idempotency-key": "k2"}, role=role
        )
        assert submitted.status == 202
    assert {"admin", "operator"} <= set(api.host.manager("lamp").calls)


def test_an_idempotency_key_that_cannot_be_one_is_refused(api):
    for key in ("", "x" * 256, "ä"):
        assert api.post(SWITCH, {"name": "a"}, headers={"idempotency-key": key}).status == 400


def test_a_key_that_would_be_of_no_effect_is_refused(api):
    key = {"idempotency-key": "k"}
    assert api.post(f"{SWITCH}/fanout", {"name": "a"}, headers=key).status == 400
    blink = api.post("/topics/lamp/methods/blink", headers={**key, "accept": "application/x-ndjson"})
    assert (blink.status, api.host.manager("lamp").calls) == (400, [])
    count = api.post("/topics/lamp/methods/count", {"to": 1}, headers={**key, "accept": "application/x-ndjson"})
    assert count.status == 200


def test_casts_and_fanouts_are_accepted(api):
    for kind in ("cast", "fanout"):
        reply = api.post(f"{SWITCH}/{kind}", {"name": kind})
        assert (reply.status, reply.json()) == (202, {"accepted": 1})


def test_a_method_that_yields_is_sent_as_lines(api):
    reply = api.get("/topics/lamp/methods/count?to=3", headers={"accept": "application/x-ndjson"})
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.body == b'{"item":0,"id":"1"}\n{"item":1,"id":"2"}\n{"item":2,"id":"3"}\n{"end":{"count":3}}\n'


def test_a_method_that_yields_is_sent_as_server_sent_events(api):
    reply = api.post("/topics/lamp/methods/count", {"to": 1}, headers={"accept": "text/event-stream"})
    assert reply.body == b'retry: 2000\n\nid: 1\nevent: item\ndata: 0\n\nevent: end\ndata: {"count":1}\n\n'


def test_a_method_that_yields_is_not_put_into_one_answer(api):
    reply = api.post("/topics/lamp/methods/count", {"to": 1})
    assert (reply.status, reply.json()["error"]) == (406, "ostler.WrongCallKind")


def test_an_error_before_the_first_item_has_a_status_and_a_later_one_is_a_frame(api):
    lines = {"accept": "application/x-ndjson"}
    reply = api.post("/topics/lamp/methods/count", {"to": 0, "fail": True}, headers=lines)
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
    reply = api.post("/topics/lamp/methods/count", {"to": 1, "fail": True}, headers=lines)
    assert b'{"error":{"type":"urn:ostler:error:ostler.NotFound"' in reply.body
    assert b'"end"' not in reply.body


def test_a_reader_that_leaves_ends_the_stream_on_the_other_side(api, run):
    async def leave():
        exchange = api.open("GET", "/topics/lamp/methods/tick", headers={"accept": "text/event-stream"})
        await exchange.head()
        assert (await exchange.frame())[:2] == ("item", 0)
        exchange.leave()
        await exchange.task

    run(leave())
    assert api.host.manager("lamp").cancelled.wait(10)


def test_the_progress_of_a_call_is_followed_by_its_result(api):
    reply = api.post("/topics/lamp/methods/slowly", {"steps": 3}, headers={"accept": "application/x-ndjson"})
    first, *_, last = reply.body.splitlines()
    assert first.startswith(b'{"progress":{"done":')
    assert last == b'{"result":"done"}'


def test_a_stream_is_told_when_the_service_stops(api, run):
    async def stop():
        exchange = api.open("GET", "/topics/lamp/methods/tick", headers={"accept": "text/event-stream"})
        await exchange.head()
        await exchange.frame()
        await api.application.stop(1.0)
        found = await exchange.frames()
        await exchange.task
        return found

    assert [kind for kind, _, _ in run(stop())] == ["stopping"]


def test_a_stream_that_has_not_begun_when_the_service_stops_is_refused(api, run):
    async def stop():
        exchange = api.open("GET", "/topics/lamp/methods/wait", headers={"accept": "text/event-stream"})
        await asyncio.to_thread(api.host.manager("lamp").started.wait, 10)
        await api.application.stop(1.0)
        await exchange.head()
        await exchange.task
        return exchange.status, exchange.headers["retry-after"]

    assert run(stop()) == (503, "1")


def test_the_number_of_streams_is_bounded(make_api, run):
    with make_api(max_streams=1) as api:

        async def open_two():
            one = api.open("GET", "/events")
            await one.head()
            two = api.open("GET", "/events")
            await two.head()
            one.leave()
            await asyncio.gather(one.task, two.task)
            return two.status, two.headers["retry-after"]

        assert run(open_two()) == (503, "5")


def test_submitting_returns_the_operation_and_where_it_is(api):
    reply = api.post("/topics/lamp/methods/build/submit", {"name": "a"})
    found = reply.json()
    assert reply.status == 202
    assert reply.headers["location"] == f"/v1/operations/{found['id']}"
    assert (found["topic"], found["method"]) == ("lamp", "build")
    assert found["submitted_at"].endswith("Z")


def test_prefer_respond_async_makes_an_operation_of_a_call(api):
    reply = api.post(SWITCH, {"name": "a"}, headers={"prefer": "respond-async"})
    assert (reply.status, reply.headers["preference-applied"]) == (202, "respond-async")


def test_a_host_that_is_not_known_is_not_found(api):
    reply = api.post(f"{CALL}?host=nowhere", {"name": "a"})
    assert (reply.status, reply.json()["error"]) == (404, "ostler.ServiceNotFound")


def test_a_stream_is_told_when_the_server_says_that_it_stops(api, run):
    async def stop():
        stopping = asyncio.Event()
        scope = {**api.scope("GET", "/topics/lamp/methods/tick", {"accept": "text/event-stream"})}
        exchange = api.exchange({**scope, "ostler.stopping": stopping})
        await exchange.head()
        await exchange.frame()
        stopping.set()
        found = await exchange.frames()
        await exchange.task
        return found

    assert [kind for kind, _, _ in run(stop())] == ["stopping"]


def test_a_client_that_is_lost_while_it_is_sent_to_is_no_error(api, run, caplog):
    async def lose():
        async def send(_message):
            raise ConnectionResetError("gone")

        for path, accept in (("/topics", ""), ("/events", "text/event-stream")):
            scope = api.scope("GET", path, {"accept": accept})
            await api.call(scope, asyncio.Event().wait, send)

    run(lose())
    assert "failed" not in caplog.text


def test_why_a_token_is_not_valid_is_said_when_no_filter_did(api, run):
    from ostler_http.callers import AuthError

    async def ask():
        error = AuthError(429, "too many failed authentications from this address", 7)
        scope = {**api.scope("GET", "/topics", role="anonymous"), "ostler.auth_error": error}
        exchange = api.exchange(scope)
        await exchange.head()
        await exchange.task
        return exchange.status, exchange.headers["retry-after"]

    assert run(ask()) == (429, "7")


def test_head_of_a_stream_has_its_headers_and_begins_nothing(api):
    for path in ("/events", "/topics/lamp/methods/tick"):
        reply = api.request("HEAD", path, headers={"accept": "text/event-stream"})
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"", "text/event-stream")
    assert not api.host.manager("lamp").cancelled.is_set()


def test_what_a_token_has_in_progress_ends_when_it_is_revoked(api, run):
    lines = {"accept": "application/x-ndjson"}

    async def revoke():
        streams = [
            api.open("GET", path, headers=lines, role="viewer") for path in ("/events", "/topics/lamp/methods/tick")
        ]
        for each in streams:
            await each.head()
            await each.frame()
        call = api.open("GET", "/topics/lamp/methods/wait", role="viewer")
        await asyncio.to_thread(api.host.manager("lamp").started.wait, 10)
        await asyncio.to_thread(api.host.revoke, "viewer")
        ends = [(await each.frames())[-1]["error"]["error"] for each in streams]
        await call.head()
        await asyncio.gather(call.task, *(each.task for each in streams))
        return ends, call.status

    assert run(revoke()) == (["ostler.NotPermitted"] * 2, 403)
    assert api.host.manager("lamp").cancelled.wait(10)


LENIENT = {"prefer": "handling=lenient"}


@pytest.mark.parametrize("verb", ["", "/cast", "/submit", "/fanout"])
def test_texts_stand_for_numbers_when_the_client_prefers_it(api, verb):
    arguments = {"steps": "2"}
    assert api.post(f"/topics/lamp/methods/slowly{verb}", arguments).status == 422
    assert api.post(f"/topics/lamp/methods/slowly{verb}", arguments, headers=LENIENT).status in (200, 202)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_method_of_the_other_kind_is_refused_and_not_run(api, accept):
    def post(method, preference, arguments):
        return api.post(f"/topics/lamp/methods/{method}", arguments, headers={"accept": accept, "prefer": preference})

    for reply in (post("count", "call-kind=call", {"to": 1}), post("slowly", "call-kind=stream", {"steps": 1})):
        assert (reply.status, reply.json()["error"]) == (400, "ostler.WrongCallKind")
    assert post("slowly", "call-kind=call", {"steps": 1}).status == 200


def test_a_version_of_the_method_can_be_asked_for(api):
    reply = api.post("/topics/lamp/methods/slowly", {"steps": 1}, headers={"prefer": 'version="9.0"'})
    assert (reply.status, reply.json()["error"]) == (400, "ostler.UnsupportedVersion")


def test_the_daemon_says_what_is_wrong_with_a_method_that_it_does_not_offer(api):
    assert api.post("/topics/lamp/methods/init_host", {}).json()["error"] == "ostler.NotExposed"
    assert api.post("/topics/lamp/methods/slowli", {}).json()["hint"] == "did you mean 'slowly'?"
    assert api.get("/topics/lamp/methods/slowli").status == 404
