"""Events of a real daemon: replay over a restart, and subscribers that are slow, late, or gone."""

import json
import os
import signal
import sqlite3
import subprocess
import time

import pytest
from daemon_process import OSTLER, wait_for

from ostler import Client, ConfigurationError
from ostler.messaging import Event, Gap

CONFIG = """
[daemon]
host = "h"
[events]
journal = ["kept*", "!kept-not"]
journal_count = {count}
[messaging]
event_queue = {queue}
[services.kept]
manager = "publishing_managers:PublishingManager"
[services.plain]
manager = "publishing_managers:PublishingManager"
[services.asked]
manager = "publishing_managers:JournaledPublishingManager"
"""


def configured(count=1000, queue=10_000):
    return CONFIG.replace("{count}", str(count)).replace("{queue}", str(queue))


@pytest.fixture
def daemon(make_daemon):
    return make_daemon(configured()).start()


def client_of(daemon):
    return Client(root=str(daemon.root))


def read(stream, until, patience=10.0):
    """Return what a stream yields up to an event for which `until` is true."""
    found = []
    ends = time.monotonic() + patience
    while time.monotonic() < ends:
        item = stream.next(timeout=0.5)
        if item is None:
            continue
        found.append(item)
        if isinstance(item, Event) and until(item):
            return found
    raise AssertionError(f"waited in vain after {found[-3:]}")


def topics_of(client):
    """Return the rows of the journal's topics by name: topic, host, first, last, epoch."""
    return {row[0]: row for row in client.call("ostler", "event_topics")}


def numbers(found):
    return [item.sequence if isinstance(item, Event) else item for item in found]


@pytest.mark.failure_mode("Events", "replay from a number over a restart")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_replay_from_a_number_over_a_restart(daemon, how):
    with client_of(daemon) as client:
        client.call("kept", "tell", count=700)
        client.call("asked", "tell_from_thread", count=5)
        with client.events("kept", since=1) as stream:
            found = read(stream, lambda event: event.sequence == 700)
            assert numbers(found) == list(range(1, 701))
            assert [event.payload["n"] for event in found] == list(range(700))
            last = found[349]
        # What nobody has seen may be lost to a SIGKILL: an event is committed before it goes out, not before the call
        # has ended.
        wait_for(lambda: topics_of(client).get("asked", [0] * 4)[3] == 5, "the journal")
    daemon.signal(how)
    daemon.wait_end()
    told = len(daemon.notices.received)
    daemon.start(wait=False)
    daemon.wait_ready(after=told)
    with client_of(daemon) as client:
        with client.events("kept", since=last) as stream:
            client.call("kept", "tell", count=50, begin=700)
            found = read(stream, lambda event: event.payload["n"] == 749)
            assert numbers(found) == list(range(351, 751)), "numbers go on, none is missing, none comes twice"
            assert len({event.epoch for event in found}) == 2
        with client.events("asked", since=3) as stream:
            assert numbers(read(stream, lambda event: event.sequence == 5)) == [3, 4, 5]
        assert set(topics_of(client)) == {"kept", "asked"}


@pytest.mark.failure_mode("Events", "a gap is seen")
def test_what_the_journal_no_longer_has_is_a_gap(make_daemon):
    daemon = make_daemon(configured(count=100)).start()
    with client_of(daemon) as client:
        for _ in range(3):
            client.call("kept", "tell", count=100)
        wait_for(lambda: topics_of(client).get("kept", [0] * 3)[2] > 150, "the journal to be trimmed")
        with client.events("kept", since=1) as stream:
            found = read(stream, lambda event: event.sequence == 300)
        first = found[1].sequence
        assert found[0] == Gap("kept", "h", 1, first - 1, True)
        assert numbers(found[1:]) == list(range(first, 301))
        assert 150 < first <= 201


@pytest.mark.failure_mode("Events", "one that is slow")
def test_a_slow_subscriber_is_told_and_can_fetch_again_what_it_missed(make_daemon):
    daemon = make_daemon(configured(queue=100)).start()
    with (
        client_of(daemon) as client,
        client_of(daemon) as other,
        client.events("kept", refetch=True) as slow,
        client.events("plain") as plain,
        other.events("kept") as fast,
    ):
        for _ in range(20):
            other.call("kept", "tell", count=40, size=20_000)
            for _ in range(40):
                assert isinstance(fast.next(timeout=5), Event), "the slow ones cost nobody else anything"
        other.call("plain", "tell", count=800, size=10_000)
        assert numbers(read(slow, lambda event: event.sequence == 800, 20)) == list(range(1, 801))
        # Not journaled, and no event comes any more: it is told all the same, within seconds.
        found = [plain.next(timeout=5)]
        while isinstance(found[-1], Event):
            found.append(plain.next(timeout=8))
        assert found[-1] == Gap("plain", "h", len(found), 800)


@pytest.mark.failure_mode("Events", "one that vanishes")
def test_a_subscriber_that_vanishes_harms_nobody(daemon):
    command = [OSTLER, "--root", str(daemon.root), "events", "kept", "--from", "1"]
    with client_of(daemon) as client, client.events("kept") as stays:
        client.call("kept", "tell", count=1)
        gone = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert "kept.h.told #1" in gone.stdout.readline()
        os.kill(gone.pid, signal.SIGSTOP)
        client.call("kept", "tell", count=50, size=10_000)
        gone.kill()
        gone.wait()
        gone.stdout.close()
        client.call("kept", "tell", count=50)
        assert numbers(read(stays, lambda event: event.sequence == 101)) == list(range(1, 102))


@pytest.mark.failure_mode("Events", "a subscriber that joins late")
def test_a_late_joiner_asks_for_the_last_event_of_each_key(daemon):
    with client_of(daemon) as client:
        unsent = {"kept", "plain"}

        def is_last(event):
            if event.sequence == 5:
                unsent.discard(event.topic)
            return not unsent

        with client.events("kept", "plain") as early:
            for topic in ("kept", "plain"):
                client.call(topic, "tell", count=3, name="on")
                client.call(topic, "tell", count=2, name="off")
            read(early, is_last)  # the journal has an event a moment before it is sent, and is a last event
        with client.events("plain", "kept.*.on", last=True) as stream:
            client.call("plain", "tell", count=1, name="on")
            found = read(stream, lambda event: event.topic == "plain" and event.sequence == 6)
        assert {(event.key, event.sequence) for event in found} == {
            ("plain.h.on", 3), ("plain.h.off", 5), ("kept.h.on", 3), ("plain.h.on", 6)
        }  # fmt: skip


def test_the_command_replays_in_json(daemon):
    with client_of(daemon) as client:
        client.call("kept", "tell", count=3)
    command = [OSTLER, "--root", str(daemon.root), "--json", "events", "--from", "2", "--count", "2"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["sequence"] for line in lines] == [2, 3]
    assert lines[0]["request_id"]
    assert lines[0]["journaled"] == 1


def test_a_topic_is_journaled_and_no_longer_by_reload(daemon):
    with client_of(daemon) as client:
        client.call("plain", "tell", count=3)
        daemon.configure(configured().replace('"kept*"', '"plain"'))
        client.call("kept", "tell", count=3)
        # A topic is journaled until what waits has been written.
        wait_for(lambda: topics_of(client).get("kept", [0] * 4)[3] == 3, "the journal")
        client.call("ostler", "reload")
        client.call("kept", "tell", count=3)
        client.call("plain", "tell", count=3)
        wait_for(lambda: {name: row[3] for name, row in topics_of(client).items()} == {"kept": 3, "plain": 3}, "both")


def test_events_go_out_while_the_database_is_locked_and_are_kept_afterwards(daemon):
    with client_of(daemon) as client, client.events("kept") as stream:
        client.call("kept", "tell", count=2)
        assert numbers(read(stream, lambda event: event.sequence == 2)) == [1, 2]
        other = sqlite3.connect(daemon.root / "state" / "ostler.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        client.call("kept", "tell", count=3, begin=2)
        found = read(stream, lambda event: event.sequence == 5)
        assert time.monotonic() - began < 8
        assert [event.journaled for event in found] == [2, 2, 2], "they went out before they were kept, and say so"
        other.execute("ROLLBACK")
        other.close()
        wait_for(lambda: topics_of(client)["kept"][3] == 5, "the journal to catch up")
        with client.events("kept", since=1) as again:
            assert [event.payload["n"] for event in read(again, lambda event: event.sequence == 5)] == list(range(5))


SINK = """
from ostler import NotificationSink, hookimpl

class FileSink(NotificationSink):
    def send(self, notification):
        with open("{path}", "a") as file:
            print(notification.priority, notification.publisher_id, notification.event_type, file=file, flush=True)

@hookimpl
def ostler_extensions():
    return {("notification_sink", "file"): FileSink}
"""


def test_a_plugin_brings_a_notification_sink(make_daemon):
    daemon = make_daemon(configured() + '[notifications]\ninfo = ["file", "log"]\n')
    path = daemon.root / "notified"
    daemon.install("filesink", SINK.replace("{path}", str(path)))
    daemon.start()
    with client_of(daemon) as client:
        client.call("plain", "notify", priority="info")
        client.call("plain", "notify", priority="error")
        wait_for(lambda: path.exists() and "plain.h" in path.read_text(), "the sink")
        assert [line for line in path.read_text().splitlines() if "plain.h" in line] == ["info plain.h thing.happened"]
        assert "plain.thing.happened" in daemon.wait_log("error plain.thing.happened")
        daemon.configure(configured() + '[notifications]\ninfo = ["fiel"]\n')
        with pytest.raises(ConfigurationError, match="notification sink fiel not found; available: events, file, log"):
            client.call("ostler", "reload")
