"""`make crash`: kills a daemon with SIGKILL at random moments under a mixed load, and checks what it has promised.

Several daemons run side by side, each with clients of its own. What is done follows from a seed; how threads and
processes meet does not, so that a failure may need its seed several times.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "functional"))

from checker import Checker, expected_content
from daemon_process import DaemonProcess
from fault_plugin import FaultyDaemon
from history import History, HistoryReader
from load_client import IMAGE_SIZE
from observation import Observation, content_is_right, observe

from ostler import Client, OperationState, OstlerError

CONFIG = """
[daemon]
host = "node1"
[plugins]
required = ["faults"]
[operations]
count = {kept}
[events]
journal_count = {kept}
[services.work]
manager = "work_manager:WorkManager"
max_operations = 8
[services.work.drivers.acts]
driver = "work_manager:FileActDriver"
path = "{root}/acts"
[services.volume]
manager = "volume"
scheduler = ""
check_interval = "2s"
state_reserve = "0B"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"
reserve = "0B"
image_directories = ["{root}/images"]
"""
HERE = Path(__file__).resolve().parent
KEPT = HERE.parents[1] / "build" / "crash"
"""Where what is left of a daemon that broke a promise is kept."""
CLIENTS = (("a", "operations,values,volumes,events"), ("b", "operations,values,volumes"))
"""The client processes: their names, and what their threads do."""
IMAGE = bytes(range(256)) * (IMAGE_SIZE // 256)
SETTLE_TIMEOUT = 30.0
"""Seconds after a restart in which all that was under way must have ended; on a quiet machine it takes one."""
_START_TIMEOUT = 60.0
_SETTLED_EVERY = 8
"""How many kills lie between two checks of a daemon that has come to rest."""
_SAMPLE = 10


class Violation(AssertionError):
    """A promise was broken."""


def make_daemon(kept: int = 1_000_000) -> FaultyDaemon:
    """Return a daemon that is not started, with what the load needs below its root.

    Args:
        kept: How many ended operations and events it keeps.
    """
    daemon = FaultyDaemon(CONFIG.replace("{kept}", str(kept)))
    (daemon.root / "history").mkdir()
    (daemon.root / "images").mkdir()
    (daemon.root / "images" / "image").write_bytes(IMAGE)
    return daemon


class Load:
    """The client processes of one daemon.

    Args:
        daemon: The daemon.
        seed: What they do follows from it.
        clients: Their names, and the kinds of their threads.
    """

    def __init__(self, daemon: DaemonProcess, seed: str, clients: Sequence[tuple[str, str]] = CLIENTS) -> None:
        self._errors = daemon.root / "client-errors"
        with self._errors.open("w") as errors:
            self._processes = [
                subprocess.Popen(
                    [sys.executable, HERE / "load_client.py", daemon.root, name, seed, kinds],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                )
                for name, kinds in clients
            ]  # fmt: skip

    def tell(self, word: str) -> None:
        """Have all clients pause, go or stop, and wait until they do."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != f"{word}\n":
                raise AssertionError(f"a client has ended with {process.wait(10)}: {self._errors.read_text()}")
        if errors := self._errors.read_text():  # a thread has ended, and loads nothing any more
            raise AssertionError(f"a client has failed: {errors}")

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@dataclass
class Figures:
    """What a run came to."""

    kills: int = 0
    during_start: int = 0
    at_points: int = 0
    settled: int = 0
    operations: int = 0
    records: int = 0
    acts: int = 0
    volumes: int = 0
    interrupted: int = 0
    slowest_rest: float = 0.0

    def add(self, other: Figures) -> None:
        """Add those of another run."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name == "slowest_rest" else mine + value)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.during_start} of them during a start, {self.at_points} at named points; "
            f"{self.settled} checks at rest, which came within {self.slowest_rest:.1f} s; "
            f"{self.operations} operations, {self.interrupted} of them interrupted, {self.acts} acts, "
            f"{self.volumes} volumes and snapshots, {self.records} lines of history"
        )


@dataclass
class CrashRun:
    """One daemon that is killed again and again.

    Args:
        seed: What is done follows from it.
        points: Named fault points at which it dies now and then, instead of at random moments.
        kept: How many ended operations and events the daemon keeps.
        settle_timeout: Seconds after a restart in which all that was under way must have ended.
        was_full: Whether its disk is full now and then; see `Checker`.
    """

    seed: str
    points: Sequence[str] = ()
    kept: int = 1_000_000
    settle_timeout: float = SETTLE_TIMEOUT
    was_full: bool = False
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.daemon = make_daemon(self.kept)
        self.reader = HistoryReader(self.daemon.root / "history")
        self.checker = Checker(keeps_all=self.kept >= 1_000_000, was_full=self.was_full)
        self.load: Load | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.load is not None:
            self.load.close()
        if error is not None and isinstance(error, Exception):
            error.add_note(f"seed {self.seed}; {self._keep()}")
        self.daemon.close()

    def _keep(self) -> str:
        place = KEPT / self.seed.replace("/", "-")
        shutil.rmtree(place, ignore_errors=True)
        try:
            shutil.copytree(self.daemon.root, place, ignore=shutil.ignore_patterns("notify", "run", "plugins"))
        except shutil.Error as error:  # of a file that was removed meanwhile; the rest is there
            return f"what is left of it is in {place} ({len(error.args[0])} files could not be copied)"
        return f"its log, database, history and volumes are in {place}"

    def begin(self) -> None:
        """Start it, and begin the load."""
        if self.points:
            self.daemon.armed.touch()
        self.daemon.start(wait=False)
        self.wait_ready()
        self.load = Load(self.daemon, self.seed)

    def wait_ready(self) -> None:
        """Wait until it is ready, longer than tests usually do: many may run side by side."""
        until = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                self.daemon.wait_ready(self.heard)
            except AssertionError:
                if self.daemon.running.poll() is not None or time.monotonic() > until:
                    raise
            else:
                return

    @property
    def heard(self) -> int:
        """How many notices the daemon's earlier runs have sent."""
        return self.daemon.heard

    def crash(self) -> None:
        """Kill it at a moment of its life, check what is left, and start it again."""
        during_start = self.rng.random() < 0.2
        delay = self.rng.uniform(0.0, 0.3 if during_start else 0.5)
        at_point = self.daemon.fault_point
        if not during_start or at_point:
            self.wait_ready_or_dead()
        if at_point:
            delay = 2.0
        hit = self._dies_within(delay)
        self.daemon.kill()
        self.figures.kills += 1
        self.figures.at_points += hit
        self.figures.during_start += during_start and not at_point
        self.check_killed()
        self.daemon.start(wait=False, fault=self._choose_point())

    def _choose_point(self) -> tuple[str, int] | None:
        return (self.rng.choice(self.points), self.rng.randint(1, 40)) if self.points else None

    def wait_ready_or_dead(self) -> None:
        """Wait until it is ready; one that is to die at a named point may do so before."""
        try:
            self.wait_ready()
        except AssertionError:
            if not (self.daemon.fault_point and self.daemon.running.poll() == -9):
                raise

    def _dies_within(self, seconds: float) -> bool:
        """Wait; return whether it has died at a named point meanwhile."""
        try:
            code = self.daemon.running.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if code == -9 and self.daemon.fault_point:
            return True
        raise Violation(f"the daemon has ended with {code}:\n{self.daemon.log[-5000:]}")

    def check_killed(self) -> Observation:
        """Check what is left of a daemon that was killed, and return it."""
        seen = observe(self.daemon.root, is_running=False)
        # The history last: what was acknowledged before the kill is in it; later lines are of what was never answered.
        history = self.reader.read()
        self.fail_if(self.checker.check_killed(history, seen), f"after kill {self.figures.kills}")
        return seen

    def check_settled(self) -> Observation:
        """Have the load pause, wait until all work has ended, check everything, and return what is the case."""
        self.wait_ready()
        began = time.monotonic()
        if self.load is not None:
            self.load.tell("pause")
        history, seen = self._come_to_rest()
        self.figures.settled += 1
        self.figures.slowest_rest = max(self.figures.slowest_rest, time.monotonic() - began)
        when = f"at rest after kill {self.figures.kills}"
        self.fail_if(self.checker.check_settled(history, seen), when)
        self.fail_if([*self._contents(history, seen), *self._client_faults(seen)], when)
        self.count(history, seen)
        if self.load is not None:
            self.load.tell("go")
        return seen

    def _come_to_rest(self) -> tuple[History, Observation]:
        until = time.monotonic() + self.settle_timeout
        ticks = -1
        while True:
            seen = observe(self.daemon.root, is_running=True)
            history = self.reader.read()
            if ticks < 0:
                ticks = len(seen.ticks)
            has_ticked = len(seen.ticks) > ticks
            # The reader of events may be behind; what it gets later is checked later.
            if has_ticked and self.checker.is_settled(history, seen):
                return history, seen
            if time.monotonic() > until:
                return history, seen
            threading.Event().wait(0.05)

    def _contents(self, history: History, seen: Observation) -> list[str]:
        found = []
        for kind, known in (("volumes", history.volumes), ("snapshots", history.snapshots)):
            for name in getattr(seen, kind):
                if name not in known:
                    found.append(f"nobody has asked for {name}")
                    continue
                path = self.daemon.root / "volumes" / kind / name
                if not path.exists():  # which was allowed, or found before
                    continue
                allowed = expected_content(known[name], path.stat().st_size)
                if not any(content_is_right(path, IMAGE, filled) for filled in allowed):
                    found.append(f"{name} has another content than it was given")
        return found

    def _client_faults(self, seen: Observation) -> list[str]:
        """Compare what a client is told with the database, for a few operations and all volumes."""
        found = []
        with Client(root=str(self.daemon.root), timeout=30) as client:
            listed = {each["name"]: each["state"] for each in client.call("volume", "list_volumes")}
            if listed != {name: state for name, (state, _) in seen.volumes.items()}:
                found.append(f"`ostler volume list` has {listed}, the database {seen.volumes}")
            if client.call("work", "get_values") != seen.values:
                found.append("the values that a client gets are not those of the database")
            names = [name for name, row in seen.operations.items() if row.topic == "work" and "." in name]
            for name in self.rng.sample(sorted(names), min(_SAMPLE, len(names))):
                row = seen.operations[name]
                try:
                    status = client.operation(name).inspect()
                except OstlerError:  # of a plain call: its id is another one
                    continue
                if (str(status.state), status.result) != (row.state, row.result):
                    found.append(f"a client is told that operation {name} is {status.state} with {status.result!r}")
            pending = [OperationState.QUEUED, OperationState.RUNNING, OperationState.WAITING]
            found += [f"`ostler operation list` has {each['id']}: {each['state']}"
                      for each in client.call("ostler", "operation.list", states=pending)]  # fmt: skip
        return found

    def count(self, history: History, seen: Observation) -> None:
        """Take the figures of what there is now."""
        self.figures.operations = len(history.operations)
        self.figures.records = history.count
        self.figures.acts = sum(seen.acts.values())
        self.figures.volumes = len(history.volumes) + len(history.snapshots)
        self.figures.interrupted = sum(bool(row.interruptions) for row in seen.operations.values())

    def fail_if(self, found: Sequence[str], when: str) -> None:
        """Raise if something is wrong."""
        if found:
            lines = "\n  ".join(found[:20])
            raise Violation(f"{when} of seed {self.seed}, {len(found)} promises were broken:\n  {lines}")

    def run(self, kills: int) -> Figures:
        """Kill it so many times."""
        self.begin()
        for number in range(1, kills + 1):
            self.crash()
            if number % _SETTLED_EVERY == 0 or number == kills:
                if self.daemon.fault_point:  # it would die in the midst of the check
                    self.daemon.kill()
                    self.check_killed()
                    self.daemon.start(wait=False)
                self.check_settled()
        return self.figures


def crash(kills: int, seed: int, daemons: int, points: Sequence[str] = ()) -> Figures:
    """Kill daemons so many times in all; return what that came to.

    Raises:
        Violation: A promise was broken; the first one.
    """
    figures, errors = Figures(), []
    lock = threading.Lock()

    def one(number: int) -> None:
        try:
            with CrashRun(f"{seed}/{number}", points) as run:
                done = run.run(kills // daemons + (number < kills % daemons))
            with lock:
                figures.add(done)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(daemons)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        errors[0].add_note(f'again: make crash ARGS="--kills {kills} --daemons {daemons} --seed {seed}"')
        raise errors[0]
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Crash, and say what came of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="how many; 1000 by default")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="by default a new one")
    parser.add_argument("--daemons", type=int, default=2, help="how many run side by side; 2 by default")
    parser.add_argument("--point", action="append", default=[], help="a named fault point to die at; may be repeated")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    began = time.monotonic()
    try:
        figures = crash(given.kills, given.seed, given.daemons, given.point)
    except AssertionError as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")
        return 1
    print(f"{figures}; in {time.monotonic() - began:.0f} s. Nothing was lost, and nothing was done twice.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
