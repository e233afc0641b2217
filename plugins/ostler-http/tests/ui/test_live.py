"""Pages that are kept up to date, and lines that are added as they happen."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.responses import StreamingResponse

from ostler import Busy, Event, Gap, Role
from ostler_http.ui.feed_view import event_rows, feed_endpoint, log_rows
from ostler_http.ui.live_view import live_messages, stream_response
from ostler_http.ui.pages.services import ServicesPage
from ostler_http.ui.recent import RecentLog, StateHistory


class QuickPage(ServicesPage):
    """The page of services, looked at again at once."""

    interval = 0.001


def parsed(message):
    """Return the name and the data of a server-sent event."""
    name, data = message.strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_a_page_is_sent_when_it_has_changed_and_only_then(admin, gateway):
    async def run():
        messages = live_messages(admin.parts, QuickPage(), admin.request("/services"))
        first = parsed(await anext(messages))
        gateway.calls.clear()
        second = asyncio.ensure_future(anext(messages))
        while sum(call[2] == "service_list" for call in gateway.calls) < 5:
            await asyncio.sleep(0)
        assert not second.done(), "a page was sent that has not changed"
        gateway.answers["service_list"][0]["topic"] = "changed-topic"
        changed = parsed(await second)
        await messages.aclose()
        return first, changed

    first, changed = asyncio.run(run())
    assert first[0] == changed[0] == "live"
    assert set(first[1]) == {"live", "health", "title"}
    assert "changed-topic" in changed[1]["live"]
    assert "<html" not in changed[1]["live"]
    assert "<script" not in changed[1]["live"] + changed[1]["title"]


def test_a_stream_ends_with_its_session(admin, gateway):
    async def run():
        messages = live_messages(admin.parts, QuickPage(), admin.request("/services"))
        await anext(messages)
        del gateway.tokens["admin-secret"]
        return [message async for message in messages]

    assert [parsed(message)[0] for message in asyncio.run(run())] == ["end"]


def test_an_error_is_said_on_the_page_and_it_goes_on_afterwards(admin, gateway):
    async def run():
        messages = live_messages(admin.parts, QuickPage(), admin.request("/services"))
        services, gateway.answers["service_list"] = gateway.answers["service_list"], Busy("the store is busy")
        first = parsed(await anext(messages))
        gateway.answers["service_list"] = services
        second = parsed(await anext(messages))
        await messages.aclose()
        return first, second

    first, second = asyncio.run(run())
    assert first == ("problem", {"text": "the store is busy"})
    assert second[0] == "live"


def test_streams_end_when_the_service_stops(admin):
    async def run():
        messages = live_messages(admin.parts, QuickPage(), admin.request("/services"))
        await anext(messages)
        await admin.application.stop(1.0)
        return [message async for message in messages]

    assert asyncio.run(run()) == []


def test_too_many_open_pages_are_told_so_and_try_again_later(make_site):
    site = make_site(max_live=1)

    async def run():
        first = stream_response(site.parts, "alice", _numbers())
        assert isinstance(first, StreamingResponse)
        body = first.body_iterator
        await anext(body)
        refused = stream_response(site.parts, "alice", _numbers())
        await body.aclose()
        assert isinstance(stream_response(site.parts, "alice", _numbers()), StreamingResponse)
        return refused

    refused = asyncio.run(run())
    retry, problem = refused.body.decode().strip().split("\n\n")
    assert retry == "retry: 30000"
    assert "max_live" in parsed(problem)[1]["text"]
    assert site.parts.live.total() == 0


def test_one_caller_cannot_take_the_live_pages_of_all(make_site):
    site = make_site(max_live=4)

    async def run():
        bodies = [stream_response(site.parts, "mallory", _numbers()).body_iterator for _ in range(2)]
        for body in bodies:
            await anext(body)
        refused = stream_response(site.parts, "mallory", _numbers())
        other = stream_response(site.parts, "alice", _numbers())
        for body in bodies:
            await body.aclose()
        return refused, other

    refused, other = asyncio.run(run())
    assert b"2 pages of mallory" in refused.body
    assert isinstance(other, StreamingResponse)


def test_a_feed_as_text_counts_as_an_open_page(make_site, gateway):
    site = make_site(max_live=1)
    site.log_in()
    endpoint = feed_endpoint(site.parts, event_rows, "event_topics", "events.html")
    gateway.events = [Event("volume", "node1", "e", {}, 1, 1, 1e9)]

    async def run():
        first = (await endpoint(site.request("/feed?as=text"))).body_iterator
        await anext(first)
        refused = await endpoint(site.request("/feed?as=text"))
        await first.aclose()
        return refused

    assert asyncio.run(run()).status_code == 503
    assert site.parts.live.total() == 0


async def _numbers():
    yield "data: 1\n\n"


@pytest.mark.parametrize("path", ["/", "/log/feed", "/events/feed", "/services"])
def test_a_stream_needs_a_session(site, path):
    answer = site.get(path, headers={"accept": "text/event-stream"})
    assert answer.text == "event: end\ndata: {}\n\n"
    assert site.gateway.calls == []


def test_a_feed_needs_the_role_of_its_method(site):
    site.log_in("viewer-secret")
    answer = site.get("/log/feed")
    assert answer.status_code == 403
    assert "log_follow" in answer.json()["title"]


async def feed(site, rows, method, template, count, query=""):
    """Return the first messages of a feed."""
    response = await feed_endpoint(site.parts, rows, method, template)(site.request(f"/feed?{query}"))
    found = []
    async for message in response.body_iterator:
        found.append(message)
        if len(found) == count:
            await response.body_iterator.aclose()
            return found
    return found


def test_lines_of_the_log_are_escaped(admin, gateway, hostile):
    record = {
        "at": 1e9, "level": "error", "logger": hostile, "message": hostile, "fields": {"request_id": hostile},
        "detail": hostile,
    }  # fmt: skip
    gateway.streamed = [{"records": [], "dropped": 0}, {"records": [record], "dropped": 3}]

    async def run():
        messages = await feed(admin, log_rows, "log_follow", "log.html", 4)
        return messages, (await feed(admin, log_rows, "log_follow", "log.html", 1, "as=text"))[0]

    messages, text = asyncio.run(run())
    name, data = parsed(messages[3])
    assert name == "rows"
    assert "<script" not in data["rows"]
    assert "<img" not in data["rows"]
    assert "3 lines were dropped" in data["rows"]
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_events_and_gaps_are_shown_and_the_pattern_is_subscribed_to(admin, gateway, hostile):
    gateway.events = [Event(hostile, hostile, hostile, {hostile: hostile}, 1, 1, 1e9), Gap("volume", "node1", 3, 9)]
    messages = asyncio.run(feed(admin, event_rows, "event_topics", "events.html", 4, "pattern=volume.*"))
    rows = parsed(messages[3])[1]["rows"]
    assert "<script" not in rows
    assert "3 to 9" in rows
    assert gateway.subscribed == [("volume.*",)]


def test_events_that_come_together_are_one_change_of_the_page(admin, gateway):
    gateway.events = [Event("volume", "node1", f"e{number}.", {}, number, 1, 1e9) for number in range(500)]
    messages = asyncio.run(feed(admin, event_rows, "event_topics", "events.html", 6))
    rows = [parsed(each)[1]["rows"] for each in messages[3:]]
    assert [each.count("<li>") for each in rows] == [201, 201, 98]
    assert rows[0].index(">e0.<") < rows[0].index(">e1.<")


def test_a_page_of_huge_events_stays_small(admin, gateway):
    gateway.events = [Event("volume", "node1", "e", {"x": "y" * 1_000_000}, 1, 1, 1e9)]
    rows = parsed(asyncio.run(feed(admin, event_rows, "event_topics", "events.html", 4))[3])[1]["rows"]
    assert "(998,003 more characters)" in rows
    assert len(rows) < 4000


def test_a_feed_ends_when_the_service_stops_though_nothing_happens(admin, gateway):
    gateway.streamed = [{"records": [], "dropped": 0}]

    async def run():
        response = await feed_endpoint(admin.parts, log_rows, "log_follow", "log.html")(admin.request("/feed"))
        body = response.body_iterator
        begun = [await anext(body) for _ in range(3)][1]
        assert begun == "event: begun\ndata: {}\n\n"
        rest = asyncio.ensure_future(_all(body))
        await asyncio.sleep(0)
        await admin.application.stop(1.0)
        return await rest

    assert asyncio.run(run()) == []
    assert admin.parts.live.total() == 0


def test_a_feed_ends_when_its_reader_has_another_role(admin, gateway):
    async def run():
        response = await feed_endpoint(admin.parts, log_rows, "log_follow", "log.html")(admin.request("/feed"))
        begun = [await anext(response.body_iterator) for _ in range(3)]
        gateway.tokens["admin-secret"] = Role.VIEWER
        return begun, await _all(response.body_iterator)

    record = {"at": 1e9, "level": "info", "logger": "x", "message": "secret", "fields": {}, "detail": ""}
    gateway.streamed = [{"records": [], "dropped": 0}, *([{"records": [record], "dropped": 0}] * 3)]
    begun, rest = asyncio.run(run())
    assert "secret" not in "".join(begun)
    assert parsed(rest[-1])[0] == "end"
    assert sum("secret" in each for each in rest) == 0


async def _all(messages):
    return [message async for message in messages]


def test_the_error_of_a_feed_is_said(admin):
    async def broken(visit):
        yield []
        raise Busy("16 clients follow the log already")

    messages = asyncio.run(feed(admin, broken, "log_follow", "log.html", 4))
    assert parsed(messages[3]) == ("problem", {"text": "16 clients follow the log already"})


def test_history_keeps_what_has_happened_to_each_service():
    history = StateHistory()
    for number in range(600):
        topic = "volume" if number % 2 else "scheduler"
        payload = {"payload": {"topic": topic, "why": str(number)}}
        history.add(Event("ostler", "node1", "service.failed", payload, number, 1, 1e9))
        history.add(Event("ostler", "node1", "operation.running", payload, number, 1, 1e9))
    history.add(Gap("ostler", "node1", 1, 5))
    history.add(Event("ostler", "node1", "odd", "text", 1, 1, 1e9))
    assert [event["facts"]["why"] for event in history.latest(2, "node1", topic="volume")] == ["599", "597"]
    assert history.latest(5, "node2") == []
    assert history.latest(1)[0]["name"] == "events lost"


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        ([], None),
        ([["volume", "node1", 1, 9, 7]], None),
        ([["ostler", "node1", 1, 9, 7]], {"ostler": 0}),
        ([["ostler", "node1", 3000, 9000, 7]], {"ostler": 7000}),
        ([["ostler", "node1", 8900, 9000, 7]], {"ostler": 8899}),
        ([["ostler", "node1", 1, 0, 7]], {"ostler": 0}),
    ],
)
def test_history_begins_with_the_newest_events_of_the_journal(gateway, topics, expected):
    gateway.answers["event_topics"] = topics
    history = StateHistory()
    run_until(history, gateway, lambda: gateway.since)
    assert gateway.since == [expected]
    assert history.is_journaled is (expected is not None)


def test_history_goes_on_after_an_error_where_it_was(gateway):
    gateway.answers["event_topics"] = [["ostler", "node1", 1, 9, 7]]
    payload = {"topic": "volume", "why": "no disk"}
    gateway.events = [Event("ostler", "node1", "driver.failed", payload, 8, 1, 1e9, journaled=True)]
    history = StateHistory()
    run_until(history, gateway, lambda: history.latest(1))
    gateway.events = []
    run_until(history, gateway, lambda: len(gateway.since) == 2)
    assert gateway.since == [{"ostler": 0}, {"ostler": 8}]
    assert [event["facts"]["why"] for event in history.latest()] == ["no disk"]


def run_until(history, gateway, is_done):
    async def run():
        following = asyncio.ensure_future(history.follow(gateway.client(gateway.caller_of_user(0, 0, 1))))
        while not is_done():
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(run())


def test_the_last_lines_of_the_log_are_kept_and_filtered(gateway, admin):
    def record(number, level):
        return {
            "at": 1e9,
            "level": level,
            "logger": "ostler.x",
            "message": f"line-{number}.",
            "fields": {},
            "detail": "",
        }

    gateway.streamed = [{"records": [record(number, "info") for number in range(400)], "dropped": 0},
                        {"records": [record(400, "error")], "dropped": 0}]  # fmt: skip

    async def run():
        client = gateway.client(gateway.caller_of_user(0, 0, 1))
        following = asyncio.ensure_future(admin.parts.recent_log.follow(client))
        while not admin.parts.recent_log.latest(lambda one: one["level"] == "error"):
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(run())
    page = admin.get("/log").text
    assert "line-400." in page
    assert "line-101." in page
    assert "line-100." not in page, "more lines than `log_lines` are kept"
    assert "line-399." not in admin.get("/log?level=error").text
    assert "line-400." not in admin.get("/log?logger=ostler.y").text
    assert asyncio.run(RecentLog(0).follow(None)) is None
