"""Each named fault point: the daemon dies there, and after the restart all is as it has promised."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from crash_run import IMAGE, CrashRun
from daemon_process import wait_for
from fault_plugin import FaultyDaemon
from fault_points import POINTS
from history import DONE, Journal
from load_client import Worker
from observation import Observation, observe

from ostler import ConnectionLost
from ostler.messaging import Retry

SIZE = len(IMAGE)
ONCE = Retry(attempts=1)


class Asker(Worker):
    """Makes the requests of a scenario, and writes them down; each is lost with the daemon, or was answered."""

    daemon: FaultyDaemon

    def prepare(self) -> None:
        """Make what the scenarios need."""
        self.volume("gold", (SIZE, True), "create_volume", size=SIZE, image=f"{self.root}/images/image")
        self.snapshot("gold@s1", (SIZE, True), "create_snapshot")

    def value(self) -> None:
        self.request("set", "k", lambda: self.client.call("work", "set_value", key="k", value=1), value=1)

    def submit(self, method: str = "resumed", pause: float = 0.0) -> None:
        submit = self.client.on(request_id="x", retry=ONCE).submit
        self.request(
            "submit", "x", lambda: submit("work", method, name="x", steps=2, pause=pause),
            is_repeated=True, method=method, steps=2,
        )  # fmt: skip

    def tell(self) -> None:
        with suppress(ConnectionLost):
            self.client.call("work", "tell", name="x", count=5)

    def cast(self) -> None:
        self.request("cast", "x", lambda: self.client.cast("work", "once", name="x"))

    def stop(self) -> None:
        self.daemon.signal(signal.SIGTERM)

    def create(self) -> None:
        self.volume("new", (SIZE, True), "create_volume", size=SIZE, image=f"{self.root}/images/image")

    def extend(self) -> None:
        self.volume("gold", (2 * SIZE, True), "extend_volume", size=2 * SIZE)

    def delete(self) -> None:
        self.create()
        self.volume("new", None, "delete_volume")

    def copy(self) -> None:
        self.snapshot("gold@s2", (SIZE, True), "create_snapshot")

    def delete_snapshot(self) -> None:
        self.snapshot("gold@s1", None, "delete_snapshot")

    def volume(self, name: str, after: Any, method: str, **arguments: Any) -> None:
        arguments |= {"backend": "local"} if method == "create_volume" else {}
        self.request("volume", name, lambda: self.client.call("volume", method, name=name, **arguments), after=after)

    def snapshot(self, key: str, after: Any, method: str) -> None:
        volume, name = key.split("@")
        self.request("snapshot", key, lambda: self.client.call("volume", method, volume=volume, name=name), after=after)


class Scenario(NamedTuple):
    """A request that comes by a point, and what must be so when the daemon was killed there, and after the restart.

    What was begun goes on, though its caller is gone: operations, those on volumes as well.
    """

    ask: Callable[[Asker], None]
    killed: Callable[[Observation], bool] = lambda seen: True
    after: Callable[[Observation], bool] = lambda seen: True


def acts(*counts: tuple[str, int]) -> Callable[[Observation], bool]:
    """Return whether the acts of the operation were done so often."""
    return lambda seen: all(seen.acts[f"x {act}"] == count for act, count in counts)


def state(*states: str) -> Callable[[Observation], bool]:
    """Return whether the operation is in one of these states; `lost` stands for: there is none."""
    return lambda seen: (seen.operations["x"].state if "x" in seen.operations else "lost") in states


def volume(name: str, *states: str) -> Callable[[Observation], bool]:
    """Return whether the record of a volume is in one of these states; `none` stands for: there is none."""
    return lambda seen: seen.volumes.get(name, ("none", 0))[0] in states


def snapshot(name: str, *states: str) -> Callable[[Observation], bool]:
    """Return the same of a snapshot."""
    return lambda seen: seen.snapshots.get(name, ("none", 0))[0] in states


def value(expected: int) -> Callable[[Observation], bool]:
    """Return whether the value is this."""
    return lambda seen: seen.values.get("k", 0) == expected


done_once = acts(("s0", 1), ("s1", 1))
SCENARIOS: dict[str, Scenario] = {
    "store.before-commit": Scenario(Asker.value, value(0), value(0)),
    "store.after-commit": Scenario(Asker.value, value(1), value(1)),
    "operation.before-commit": Scenario(Asker.submit, state("lost"), state("lost")),
    "operation.after-commit": Scenario(Asker.submit, state("queued", "running"), done_once),
    "operation.stored": Scenario(Asker.submit, state("queued", "running"), done_once),
    "operation.claimed": Scenario(Asker.submit, state("running"), done_once),
    "operation.step-done": Scenario(Asker.submit, acts(("s0", 1)), acts(("s0", 2), ("s1", 1))),
    "operation.step-recorded": Scenario(Asker.submit, acts(("s0", 1)), done_once),
    "operation.done": Scenario(Asker.submit, state("running"), done_once),
    "operation.ended": Scenario(Asker.submit, state("succeeded"), done_once),
    "journal.before-append": Scenario(Asker.tell, lambda seen: not seen.events),
    "journal.after-append": Scenario(Asker.tell, lambda seen: bool(seen.events), lambda seen: bool(seen.events)),
    "volume.recorded": Scenario(Asker.create, volume("new", "creating"), volume("new", "available")),
    "volume.created": Scenario(Asker.create, volume("new", "creating"), volume("new", "available")),
    "volume.end-recorded": Scenario(Asker.create, volume("new", "available"), volume("new", "available")),
    "volume.change-recorded": Scenario(Asker.extend, volume("gold", "extending"), volume("gold", "available")),
    "volume.deletion-recorded": Scenario(Asker.delete, volume("new", "deleting"), volume("new", "none")),
    "volume.deleted": Scenario(Asker.delete, volume("new", "deleting"), volume("new", "none")),
    "volume.record-deleted": Scenario(Asker.delete, volume("new", "none"), volume("new", "none")),
    "snapshot.recorded": Scenario(Asker.copy, snapshot("gold@s2", "creating"), snapshot("gold@s2", "available")),
    "snapshot.created": Scenario(Asker.copy, snapshot("gold@s2", "creating"), snapshot("gold@s2", "available")),
    "snapshot.deleted": Scenario(Asker.delete_snapshot, snapshot("gold@s1", "deleting"), snapshot("gold@s1", "none")),
    "file.partial": Scenario(Asker.create, volume("new", "creating"), volume("new", "available")),
    "file.fill": Scenario(Asker.create, volume("new", "creating"), volume("new", "available")),
    "file.sync": Scenario(Asker.create, volume("new", "creating"), volume("new", "available")),
    "file.rename": Scenario(Asker.create, volume("new", "creating"), volume("new", "available")),
    "file.sync-folder": Scenario(Asker.create, volume("new", "creating"), volume("new", "available")),
    "file.unlink": Scenario(Asker.delete, volume("new", "deleting"), volume("new", "none")),
    "reply.before": Scenario(Asker.value, value(1), value(1)),
    "reply.after": Scenario(Asker.value, value(1), value(1)),
    "cast.accepted": Scenario(Asker.cast),
    "periodic.done": Scenario(Asker.stop),
}
SPECIAL = {"operation.taken-over"}
"""Points that are reached during a restart, which a test of their own does."""


@pytest.fixture
def run(request) -> Iterator[CrashRun]:
    with CrashRun(request.node.name) as made:
        yield made


@pytest.fixture
def client(run) -> Iterator[Asker]:
    journal = Journal(run.daemon.root / "history" / "asker.jsonl")
    made = Asker(str(run.daemon.root), "asker", "seed", journal)
    made.daemon = run.daemon
    yield made
    made.client.close()
    journal.close()


def test_every_point_has_a_scenario() -> None:
    assert POINTS.keys() == SCENARIOS.keys() | SPECIAL


@pytest.mark.failure_mode("State", "nothing acknowledged is lost by `kill -9`")
@pytest.mark.parametrize("point", SCENARIOS)
def test_a_daemon_that_dies_at_a_named_point_keeps_its_promises(point, run, client) -> None:
    scenario = SCENARIOS[point]
    run.daemon.start(fault=(point, 1))
    client.prepare()
    run.daemon.armed.touch()
    scenario.ask(client)
    assert run.daemon.wait_end() == -9
    assert run.daemon.died_at == point
    killed = run.check_killed()
    assert scenario.killed(killed), killed
    run.daemon.start()
    settled = run.check_settled()
    assert scenario.after(settled), settled


@pytest.mark.failure_mode("State", "nothing acknowledged is lost by `kill -9`")
@pytest.mark.parametrize("method", ["resumed", "retried", "undone", "once"])
def test_a_daemon_that_dies_while_it_takes_operations_over_does_so_again(method, run, client) -> None:
    run.daemon.start()
    client.submit(method, pause=0.5)
    first = {"undone": "x begin", "once": "x once"}.get(method, "x s0")
    wait_for(lambda: first in (run.daemon.root / "acts").read_text(), "its first act")
    if method == "resumed":
        wait_for(lambda: observe(run.daemon.root, is_running=True).operations["x"].steps, "it to be recorded")
    run.daemon.kill()
    run.check_killed()
    run.daemon.armed.touch()
    run.daemon.start(wait=False, fault=("operation.taken-over", 1))
    assert run.daemon.wait_end() == -9
    assert run.daemon.died_at == "operation.taken-over"
    run.check_killed()
    run.daemon.start()
    settled = run.check_settled()
    assert settled.operations["x"].state == ("failed" if method in {"undone", "once"} else "succeeded")
    assert settled.acts[first] == (2 if method == "retried" else 1)


def test_a_point_that_nothing_comes_by_kills_nobody(run, client) -> None:
    run.daemon.start(fault=("operation.ended", 1))
    run.daemon.armed.touch()
    client.value()
    assert run.reader.read().values == {"k": (1, 1)}
    assert run.daemon.died_at == ""
    assert run.daemon.stop() == 0


def test_a_point_that_wraps_what_is_not_there_stops_the_start(run) -> None:
    run.daemon.start(wait=False, fault=("no.such.point", 1))
    assert run.daemon.running.wait(20) not in (0, -9)
    run.daemon.wait_log("no.such.point")
    assert run.daemon.died_at == ""


def test_what_a_client_was_told_is_written_down(run, client) -> None:
    run.daemon.start()
    client.submit()
    known = run.reader.read().operations["x"]
    assert (known.is_accepted, known.is_refused) == (True, False)
    client.journal.write("ended", "x", DONE, state="succeeded", result="x:2")
    assert run.check_settled().operations["x"].state == "succeeded"
