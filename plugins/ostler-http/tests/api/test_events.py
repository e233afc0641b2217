from __future__ import annotations

import pytest

from ostler_http.api.events import read_positions, write_positions
from ostler_http.api.problems import HttpError

TELL = "/topics/lamp/methods/tell"


async def tell(api, name, times=1):
    exchange = api.open("POST", TELL, {"name": name, "times": times})
    await exchange.head()
    await exchange.task
    assert exchange.status == 200


async def follow(api, path="/events", **headers):
    exchange = api.open("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    await exchange.head()
    assert exchange.status == 200, await exchange.next()
    return exchange, await exchange.frame()


async def leave(exchange):
    exchange.leave()
    await exchange.task


def test_events_come_as_they_are_published_each_with_an_id(api, run):
    async def watch():
        exchange, ready = await follow(api, "/events?topic=lamp")
        await tell(api, "lit")
        kind, event, position = await exchange.frame()
        await leave(exchange)
        return ready, kind, event, position

    ready, kind, event, position = run(watch())
    assert ready[:2] == ("ready", {"patterns": ["lamp"], "positions": {}})
    assert (kind, position) == ("event", "lamp:1")
    assert [event[name] for name in ("topic", "name", "payload", "sequence")] == ["lamp", "lit", {"lamp": "lit"}, 1]
    assert event["at"].endswith("Z")


def test_a_client_that_connects_again_gets_what_it_missed_from_the_journal(api, run):
    async def watch():
        exchange, _ = await follow(api)
        await tell(api, "one")
        _, _, position = await exchange.frame()
        await leave(exchange)
        await tell(api, "two")
        await tell(api, "three")
        exchange, ready = await follow(api, last_event_id=position)
        found = [await exchange.frame(), await exchange.frame()]
        await leave(exchange)
        return ready[2], [(event["name"], place) for _, event, place in found]

    assert run(watch()) == ("lamp:1", [("two", "lamp:2"), ("three", "lamp:3")])


def test_a_topic_that_the_id_does_not_name_is_read_from_its_beginning(api, run):
    async def watch():
        exchange, (_, _, position) = await follow(api, "/events?topic=lamp")
        await tell(api, "one")
        await exchange.frame()
        await leave(exchange)
        again, _ = await follow(api, "/events?topic=lamp", last_event_id=position)
        frame = await again.frame()
        await leave(again)
        return frame[1]["name"]

    assert run(watch()) == "one"


def test_a_gap_is_told_as_an_event(api, run):
    async def watch():
        exchange, _ = await follow(api, "/events?topic=lamp")
        await tell(api, "one")
        await exchange.frame()
        await leave(exchange)
        exchange, _ = await follow(api, "/events?topic=lamp&since=lamp:900")
        frame = await exchange.frame()
        await leave(exchange)
        return frame

    kind, gap, _ = run(watch())
    assert (kind, gap["topic"]) == ("gap", "lamp")


def test_events_come_as_lines_if_asked_for(api, run):
    async def watch():
        exchange, ready = await follow(api, "/events?topic=lamp.*.lit", accept="application/x-ndjson")
        await tell(api, "dark")
        await tell(api, "lit")
        line = await exchange.frame()
        await leave(exchange)
        return ready, line

    ready, line = run(watch())
    assert (ready["ready"]["positions"], ready["id"]) == ({}, "-")
    assert (line["event"]["name"], line["id"]) == ("lit", "lamp:2")


def test_a_client_that_leaves_ends_its_subscription(api, run):
    async def watch():
        exchange, _ = await follow(api)
        await leave(exchange)
        return api.application.streams.open_count

    assert run(watch()) == 0


def test_an_idle_stream_is_kept_open_by_comments(make_api, run):
    async def watch(api):
        exchange, _ = await follow(api)
        while not exchange.text.endswith(":\n\n"):
            exchange.text += (await exchange.next())["body"].decode()
        await leave(exchange)

    with make_api(keepalive=0.01) as api:
        run(watch(api))


@pytest.mark.parametrize("text", ["x", "lamp:", ":1", "lamp:-1", "lamp:1;", "lamp:99999999999999999999", "lamp:٣"])
def test_an_id_that_is_none_is_refused(text):
    with pytest.raises(HttpError, match="Last-Event-ID"):
        read_positions(text)


def test_positions_survive_their_way_through_a_header():
    positions = {"a;b:c ä": 5, "lamp": 10**17}
    assert write_positions(positions).isascii()
    assert read_positions(write_positions(positions)) == positions
    assert read_positions("") is None
    assert read_positions(write_positions({})) == {}


def test_an_id_is_never_longer_than_a_header_may_be():
    text = write_positions({f"topic-{number:050}": number for number in range(1000)})
    assert len(text) <= 4000
    assert text.endswith(":999")


def test_too_many_patterns_and_unknown_words_are_refused(api):
    assert api.get("/events?" + "&".join(["topic=x"] * 21)).status == 400
    assert api.get("/events?prefix=x").status == 400


def test_events_need_a_role(api):
    assert api.get("/events", role="anonymous").status == 401


def test_after_a_gap_the_id_goes_on_from_where_the_journal_is(api, run):
    async def watch():
        exchange, _ = await follow(api, "/events?topic=lamp")
        await tell(api, "one")
        await exchange.frame()
        await leave(exchange)
        exchange, _ = await follow(api, "/events", last_event_id="lamp:900;gone:7")
        gaps = {}
        for _ in range(2):
            kind, gap, position = await exchange.frame()
            assert kind == "gap"
            gaps[gap["topic"]] = position
        await leave(exchange)
        await tell(api, "two")
        again, _ = await follow(api, "/events", last_event_id=position)
        frame = await again.frame()
        await leave(again)
        return gaps, position, frame

    gaps, position, (kind, event, _) = run(watch())
    assert gaps.keys() == {"lamp", "gone"}
    assert position == "lamp:1"
    assert (kind, event["name"]) == ("event", "two")


def test_a_stream_of_events_ends_with_the_deadline_that_it_was_given(api, run):
    async def watch():
        exchange, _ = await follow(api, request_timeout="0.2")
        return await exchange.frames()

    [(kind, problem, _)] = run(watch())
    assert (kind, problem["error"]) == ("error", "ostler.DeadlineExceeded")
    assert "200ms" in problem["detail"]


def test_the_streams_of_one_caller_are_bounded_and_leave_room_for_others(make_api, run):
    async def watch(api):
        one, _ = await follow(api)
        refused = api.open("GET", "/events")
        await refused.head()
        other = api.open("GET", "/events", role="viewer")
        await other.head()
        await leave(one)
        again, _ = await follow(api)
        for each in (again, other):
            await leave(each)
        return refused.status, refused.headers["retry-after"], other.status

    with make_api(max_streams_per_caller=1) as api:
        assert run(watch(api)) == (429, "5", 200)


def test_a_topic_that_is_empty_or_a_position_that_is_given_twice_is_refused(api):
    for query in ("topic=", "topic=lamp&topic=", "since=lamp:1&since=lamp:2"):
        assert api.get("/events", query=query).status == 400
