"""Event handlers of managers, as a plugin's test sees them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ostler import ConfigurationError, Context, Event, Gap, Manager, exposed, on_event
from ostler.manager_types import EventHandlerStatus
from ostler.store.session import current_session
from ostler.testing import host
from ostler.types import ServiceState


class Source(Manager):
    journal_events = True

    @exposed(role="operator")
    def send(self, ctx: Context, count: int = 1, name: str = "created") -> None:
        """Publish some events."""
        for number in range(count):
            self.client.publish(name, number)


class Plain(Source):
    journal_events = False


class Sink(Manager):
    seen: list
    gate = threading.Event()
    always_fails = False

    def init_host(self, service_id, added_to_cluster):
        self.seen, self.aseen, self.slow = [], [], []

    @on_event("source.*.created")
    def on_created(self, ctx: Context, event: Event | Gap) -> None:
        self.seen.append(event if isinstance(event, Gap) else event.payload)
        if (not isinstance(event, Gap) and event.payload == 13) or self.always_fails:
            raise ValueError("thirteen")

    @on_event("source", "plain.*.*")
    async def on_all(self, ctx: Context, event: Event | Gap) -> None:
        await asyncio.sleep(0)
        self.aseen.append(event if isinstance(event, Gap) else event.name)

    @on_event("source.*.slow", "plain.*.slow", queue=2)
    def on_slow(self, ctx: Context, event: Event | Gap) -> None:
        self.slow.append(event if isinstance(event, Gap) else event.payload)
        self.gate.wait(20)

    @exposed(role="viewer", changes=False)
    def addresses(self, ctx: Context) -> list[str]:
        """Return the daemon's addresses."""
        return [self.daemon.rpc, self.daemon.events, self.daemon.network]


CONFIG = "".join(f'[services.{name}]\nmanager = "{name}"\ndrain_timeout = 1\n' for name in ("source", "plain", "sink"))
MANAGERS = {"source": Source, "plain": Plain, "sink": Sink}


@pytest.fixture
def running(tmp_path):
    Sink.gate.set()
    with host(config=CONFIG, managers=MANAGERS, state=tmp_path) as made:
        yield made
        Sink.gate.set()


def statuses(made):
    rows = made.on(type=list[EventHandlerStatus]).call("ostler", "event_handlers")
    return {row.handler: row for row in rows}


def seen(made):
    return made.manager("sink").seen


def test_a_handler_gets_the_events_that_match_in_order(running):
    running.call("source", "send", count=5)
    running.call("source", "send", name="other")
    running.call("plain", "send", name="other")
    running.wait_for(lambda: len(seen(running)) == 5, "five events")
    assert seen(running) == [0, 1, 2, 3, 4]
    running.wait_for(lambda: len(running.manager("sink").aseen) == 7, "seven events")
    running.wait_for(lambda: statuses(running)["on_created"].handled == 5, "the count, which comes after the call")


def test_an_error_is_counted_and_the_next_event_follows(running, caplog):
    running.call("source", "send", count=15)
    running.wait_for(lambda: len(seen(running)) == 15, "fifteen events")
    running.wait_for(lambda: statuses(running)["on_created"].handled == 14, "the last one to be counted")
    assert statuses(running)["on_created"].errors == 1
    assert "event handler on_created of sink failed for source.testhost.created: ValueError: thirteen" in caplog.text


def test_a_handler_that_fails_again_and_again_makes_its_service_degraded_by_name(tmp_path):
    Sink.gate.set()
    quick = CONFIG.replace('manager = "sink"', 'manager = "sink"\nreport_interval = "50ms"\ndown_time = "5s"')
    with host(config=quick, managers=MANAGERS, state=tmp_path) as made:
        state = made.service("sink").state_tracker
        for _ in range(2):
            made.call("source", "send", count=14)
        made.wait_for(lambda: statuses(made)["on_created"].errors == 2, "two errors")
        assert state.problems == {}, "two of many failed"
        made.manager("sink").always_fails = True
        made.call("source", "send", count=3)
        made.wait_for(lambda: state.problems, "the service to be degraded")
        assert state.state is ServiceState.DEGRADED
        text = "event handler on_created of sink failed 3 times in a row or more often"
        assert state.problems["event handler on_created"].startswith(f"{text}: source.testhost.created: ValueError")
        made.manager("sink").always_fails = False
        made.call("source", "send")
        made.wait_for(lambda: state.state is ServiceState.UP, "the service to be well")


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_continues_after_the_last_event(running, crash):
    running.call("source", "send", count=3)
    running.wait_for(lambda: len(seen(running)) == 3, "three events")
    if crash:
        positions = "SELECT count(*) FROM event_positions WHERE sequence = 3 AND handler != 'on_slow'"
        running.wait_for(lambda: rows(running, positions) == 2, "the positions to be stored")
    running.restart(crash=crash)
    running.call("source", "send", count=2)
    running.wait_for(lambda: len(seen(running)) == 2, "two events")
    assert seen(running) == [0, 1]


def rows(made, query):
    return made.store.read(lambda: current_session().database.execute_sql(query).fetchone()[0])


def test_events_of_a_stopped_handler_come_at_its_next_start(running):
    running.call("source", "send")
    running.wait_for(lambda: seen(running) == [0], "the first event")
    service = running.service("sink")
    running.run(service.drain(5))
    running.call("source", "send", count=4)
    assert seen(running) == [0]
    running.run(resume(service))
    running.wait_for(lambda: len(seen(running)) == 5, "the missed events")
    assert seen(running) == [0, 0, 1, 2, 3]


async def resume(service):
    service.resume()


def test_what_a_full_queue_drops_is_read_from_the_journal(running):
    Sink.gate.clear()
    running.call("source", "send", count=50, name="slow")
    running.call("source", "send", count=3)
    running.wait_for(lambda: len(seen(running)) == 3, "others not to wait")
    Sink.gate.set()
    running.wait_for(lambda: len(running.manager("sink").slow) == 50, "all events")
    assert running.manager("sink").slow == list(range(50))


def test_what_a_full_queue_drops_of_a_plain_topic_is_a_gap(running):
    Sink.gate.clear()
    running.call("plain", "send", name="slow")
    running.wait_for(lambda: len(running.manager("sink").slow) == 1, "the first event")
    running.call("plain", "send", count=50, name="slow")
    Sink.gate.set()
    running.wait_for(lambda: len(running.manager("sink").slow) == 4, "the gap")
    assert running.manager("sink").slow == [0, 0, 1, Gap("plain", "testhost", 4, 51)]
    running.wait_for(lambda: statuses(running)["on_slow"].gaps == 1, "the gap to be counted")


def test_an_event_that_was_cut_off_is_repeated(running):
    Sink.gate.clear()
    running.call("source", "send", name="slow")
    running.wait_for(lambda: len(running.manager("sink").slow) == 1, "the event")
    assert statuses(running)["on_slow"].handling == "source.testhost.slow"
    assert running.service("sink").in_progress()
    running.restart()
    running.wait_for(lambda: len(running.manager("sink").slow) == 1, "the event again")


def test_a_topic_that_is_new_to_a_known_handler_is_read_from_its_beginning(tmp_path):
    Sink.gate.set()
    only_sink = '[services.sink]\nmanager = "sink"\n'
    with host(config=only_sink, managers=MANAGERS, state=tmp_path) as made:
        made.wait_for(lambda: rows(made, "SELECT count(*) FROM event_positions") == 3, "the handlers to be known")
    with host(config=CONFIG.replace("[services.sink]", "[services.sink]\nenabled = false"), managers=MANAGERS,
              state=tmp_path) as made:  # fmt: skip
        made.call("source", "send", count=3)
    with host(config=CONFIG, managers=MANAGERS, state=tmp_path) as made:
        made.wait_for(lambda: len(seen(made)) == 3, "the events before its start")


def test_a_first_start_begins_with_what_comes_then(tmp_path):
    Sink.gate.set()
    with host(config='[services.source]\nmanager = "source"\n', managers=MANAGERS, state=tmp_path) as made:
        made.call("source", "send", count=3)
    with host(config=CONFIG, managers=MANAGERS, state=tmp_path) as made:
        made.call("source", "send", count=1)
        made.wait_for(lambda: seen(made), "an event")
        assert seen(made) == [0]


def test_a_wrong_handler_is_found_when_it_is_loaded():
    class Wrong(Manager):
        @on_event("a b")
        def handle(self, ctx, event):
            pass

    with pytest.raises(ConfigurationError, match="'a b' is not a valid pattern"), host(
        config='[services.sink]\nmanager = "wrong"\n', managers={"wrong": Wrong}
    ):  # fmt: skip
        pass


def test_a_manager_knows_where_its_daemon_listens(running):
    assert running.call("sink", "addresses") == ["memory", "memory", ""]


@pytest.mark.parametrize("turn", range(5))
def test_what_a_test_publishes_first_is_seen(turn: int) -> None:
    with host(config=CONFIG, managers=MANAGERS, virtual_time=True) as made:
        made.publish("plain", "created")
        made.wait_for(lambda: made.manager("sink").aseen == ["created"], "the event", timeout=5)
