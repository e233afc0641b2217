from __future__ import annotations

import asyncio
import re

import pytest

BUILD = "/topics/lamp/methods/build/submit"


def submit(api, name):
    return api.post(BUILD, {"name": name}).json()["id"]


def wait_end(api, operation):
    reply = api.get(f"/operations/{operation}/watch", headers={"accept": "application/x-ndjson"})
    return reply.body.splitlines()


def test_an_operation_is_watched_until_it_ends(api):
    operation = submit(api, "a")
    *_, last, end = wait_end(api, operation)
    assert b'"state":"succeeded"' in last
    assert b'"result":"a is built"' in last
    assert end.startswith(b'{"end":{"count":')


def test_an_operation_is_shown_with_moments_as_text_and_watched_by_accept(api):
    operation = submit(api, "a")
    wait_end(api, operation)
    found = api.get(f"/operations/{operation}").json()
    assert (found["id"], found["state"], found["expires_at"]) == (operation, "succeeded", None)
    assert found["submitted_at"].endswith("Z")
    events = api.get(f"/operations/{operation}", headers={"accept": "text/event-stream"})
    assert b"event: status\n" in events.body


def test_operations_are_listed_the_newest_first_in_pages(api):
    submitted = [submit(api, str(number)) for number in range(5)]
    for each in submitted:
        wait_end(api, each)
    seen, path = [], "/operations?limit=2&topic=lamp"
    while path:
        reply = api.get(path)
        seen += [each["id"] for each in reply.json()]
        link = reply.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link.partition(">")[0].removeprefix("</v1")
    assert seen == submitted[::-1]


def test_a_page_goes_on_where_it_ended_though_new_ones_came(api):
    submitted = [submit(api, str(number)) for number in range(4)]
    reply = api.get("/operations?limit=2")
    submit(api, "later")
    following = reply.headers["link"].partition(">")[0].removeprefix("</v1")
    assert [each["id"] for each in api.get(following).json()] == submitted[1::-1]


def test_a_cursor_that_is_none_is_refused(api):
    for cursor in ("x", "ä", "bnVsbA", "WyJ4IiwxXQ"):
        assert api.get("/operations", query=f"cursor={cursor}").status in (400, 410)


def test_a_limit_that_is_none_is_refused(api):
    for limit in ("0", "-1", "x", "1001", "٣", ""):
        assert api.get("/operations", query=f"limit={limit}").status == 400


def test_the_list_is_chosen_by_state_and_submitter(api):
    operation = submit(api, "a")
    wait_end(api, operation)
    assert [each["id"] for each in api.get("/operations?state=succeeded,failed").json()] == [operation]
    assert api.get("/operations?state=failed").json() == []
    assert api.get("/operations?mine=true", role="viewer").json() == []
    assert api.get("/operations?mine=perhaps").status == 400
    assert api.get("/operations?state=nosuch").status == 422


def test_an_ended_operation_is_not_cancelled_nor_retried(api):
    operation = submit(api, "a")
    wait_end(api, operation)
    assert api.post(f"/operations/{operation}/cancel").status == 409
    assert api.post(f"/operations/{operation}/retry").status == 409


def test_an_operation_that_is_not_there_is_not_found(api):
    for path in ("/operations/nosuch", "/operations/nosuch/watch"):
        assert api.get(path).status == 404


def test_the_same_key_submits_the_same_operation(api):
    key = {"idempotency-key": "once"}
    first, second = (api.post(BUILD, {"name": "a"}, headers=key).json()["id"] for _ in range(2))
    assert first == second
    assert api.post(BUILD, {"name": "b"}, headers=key).status == 409


def test_a_time_limit_is_that_of_the_operation(api):
    assert api.post(f"{BUILD}?time_limit=3600", {"name": "a"}).json()["expires_at"].endswith("Z")
    for text in ("0", "x", "nan", "inf"):
        assert api.post(f"{BUILD}?time_limit={text}", {"name": "a"}).status == 400


@pytest.mark.parametrize("key", ["a/b", "a?b#c", "../..", "a b", "a\\b", "%2F", "'\"$(x)", "x" * 255])
def test_an_operation_is_found_where_its_location_says(api, key):
    reply = api.post(BUILD, {"name": "a"}, headers={"idempotency-key": key})
    where = reply.headers["location"].removeprefix("/v1")
    assert api.get(where).json()["id"] == reply.json()["id"]
    assert re.fullmatch(r"[\w.-]+", reply.json()["id"])


def test_an_id_that_another_client_chose_may_have_a_slash(api, run):
    client = api.host.gateway.client(api.host.caller("admin"))
    run(client.submit("lamp", "build", {"name": "a"}, request_id="a/b c"))
    assert api.get("/operations/a%2Fb%20c").json()["id"] == "a/b c"
    assert api.get("/operations/a%2fb%20c/watch").status == 200


def test_a_repeated_retry_with_a_key_gets_the_first_answer(api):
    operation = submit(api, "a")
    wait_end(api, operation)
    assert api.post(f"/operations/{operation}/cancel", headers={"idempotency-key": "c"}).status == 409
    assert api.post(f"/operations/{operation}/retry", headers={"idempotency-key": "c"}).json()["error"] == (
        "ostler.Conflict"
    )
    assert api.get(f"/operations/{operation}", headers={"idempotency-key": "c"}).status == 200


def test_an_operation_that_is_waited_for_is_returned_when_it_has_ended(api):
    for path, header in (("build", "respond-async, wait=10"), ("build/submit", 'wait="10"; x=1')):
        reply = api.post(f"/topics/lamp/methods/{path}", {"name": "a"}, headers={"prefer": header})
        assert (reply.status, reply.json()["state"]) == (200, "succeeded")
        assert reply.json()["result"] == "a is built"
        assert reply.headers["preference-applied"].endswith("wait=10")
        assert reply.headers["location"].endswith(reply.json()["id"])


def test_an_operation_that_takes_longer_is_returned_as_it_is(api):
    hold, soon = "/topics/lamp/methods/hold", {"prefer": "respond-async, wait=1"}
    reply = api.post(hold, headers=soon)
    assert (reply.status, reply.json()["result"]) == (202, None)
    where = reply.headers["location"].removeprefix("/v1")
    assert api.get(where, headers=soon).json()["result"] is None
    api.host.manager("lamp").released.set()
    reply = api.get(where, headers={"prefer": "respond-async, wait=10"})
    assert (reply.status, reply.json()["state"], reply.headers["preference-applied"]) == (200, "succeeded", "wait=10")


def test_waiting_ends_with_the_deadline_of_the_request(api):
    more = {"prefer": "respond-async, wait=600", "request-timeout": "1"}
    reply = api.post("/topics/lamp/methods/hold", headers=more)
    assert reply.status == 202
    api.host.manager("lamp").released.set()


def test_a_client_that_leaves_while_it_waits_leaves_the_operation_alone(api, run):
    async def leave():
        exchange = api.open("POST", "/topics/lamp/methods/hold/submit", headers={"prefer": "wait=10"})
        client = api.host.gateway.client(api.host.caller("admin"))
        while not (found := await client.call("ostler", "operation.list", {})):
            await asyncio.sleep(0.001)  # until it is stored
        exchange.leave()
        await exchange.task
        return found[0]["id"]

    operation = run(leave())
    api.host.manager("lamp").released.set()
    assert b'"state":"succeeded"' in wait_end(api, operation)[-2]


@pytest.mark.parametrize(
    "header", ["wait", "wait=", "wait=-1", "wait=x", "wait=1e3", "wait=0", ",;=", "handling=lenient"]
)
def test_a_preference_that_is_not_known_is_ignored(api, header):
    reply = api.post(BUILD, {"name": "a"}, headers={"prefer": header})
    assert (reply.status, "preference-applied" in reply.headers) == (202, False)


def test_waiting_for_an_operation_that_is_not_there_is_not_found(api):
    assert api.get("/operations/nosuch", headers={"prefer": "wait=5"}).status == 404
