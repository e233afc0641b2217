"""`make soak`: a mixed load for as long as asked, with kills, stops, reloads, suspensions and a full disk.

The same promises are checked as by `make crash`, and that the daemon does not grow: what it has of memory, descriptors
and threads while it lives, and the size of its database over all its lives. As root its state and its volumes are on
a small file system of their own, which is filled now and then.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "functional"))
sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from crash_run import CrashRun, Violation
from growth import Size, size

KEPT = 10_000
"""How many ended operations, and events, the daemon keeps: few, so that both limits are reached, and yet more than end
between two checks."""
DISK_SIZE = "64m"
MEMORY_MARGIN = 24 * 2**20
"""Bytes that the daemon may have more of at the end of one life than when it has seen each fault once: on a full disk
what cannot be written waits in memory, and the allocator does not return all of it."""
FILES_MARGIN, THREADS_MARGIN = 8, 24
_LIFE = 40.0
"""Seconds of a life in which growth is measured."""
_WARM_UP = 5.0
_DEATHS = 6
_STOP_TIMEOUT = 60.0
_MIN_TIME_FOR_DATABASE = 300.0
"""Seconds after which the limits of retention have been reached."""
_DATABASE_FACTOR, _DATABASE_MARGIN = 1.5, 2 * 2**20


class Life(NamedTuple):
    """One life of a daemon: its size soon after the begin and at the end."""

    seconds: float
    first: Size
    last: Size


class SmallDisk:
    """A file system of a few MiB for state and volumes; without root there is none, and nothing is filled.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"
        folder.mkdir(mode=0o700, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE},mode=700", "ostler-soak", folder],
            capture_output=True, check=False,
        )  # fmt: skip
        self.is_mounted = done.returncode == 0

    def fill(self) -> None:
        """Leave no byte free."""
        file = os.open(self._filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for block in (2**20, 2**12, 1):
                with suppress(OSError):
                    while True:
                        os.write(file, bytes(block))
        finally:
            os.close(file)

    def relieve(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", self._folder], check=False)


class Soak:
    """One daemon, its load, and the faults.

    Args:
        seed: What is done follows from it.
        life: Seconds of a life in which growth is measured.
        deaths: How often it is ended at short intervals between two of these.
    """

    def __init__(self, seed: str, life: float = _LIFE, deaths: int = _DEATHS) -> None:
        self._life, self._deaths = life, deaths
        # After a full disk, drivers and operations wait before they try again.
        self.run = CrashRun(seed, kept=KEPT, settle_timeout=90.0, was_full=True)
        self.daemon = self.run.daemon
        self.disk = SmallDisk(self.daemon.root / "state")
        self._rng = random.Random(f"{seed}/faults")
        self._prepare()
        self.counts: Counter[str] = Counter()
        self.lives: list[Life] = []
        self.database_sizes: list[int] = []

    def _prepare(self) -> None:
        """Put the volumes on the same file system as the state."""
        self._config = (
            (self.daemon.root / "etc" / "ostler.toml").read_text()
            .replace('volumes"', 'state/volumes"').replace('state_reserve = "0B"', 'state_reserve = "4MiB"')
        )  # fmt: skip
        self.daemon.configure(self._config)
        (self.daemon.root / "volumes").symlink_to("state/volumes")

    def faults(self) -> dict[str, Callable[[], None]]:
        """Return what can be done to it without ending it, by name."""
        found = {"suspended": self._suspend, "reloaded": self._reload}
        if self.disk.is_mounted:
            found["disk full"] = self._fill_disk
        return found

    def ends(self) -> dict[str, Callable[[], None]]:
        """Return what ends it, by name."""
        found = {"killed": self._kill, "stopped": self._stop, "killed during its start": self._kill_start}
        if self.disk.is_mounted:
            found["killed on a full disk"] = self._kill_on_full_disk
        return found

    def live(self) -> None:
        """Let it live for a while, with faults that it survives, and look whether it has grown."""
        self._rest(_WARM_UP)
        for name, fault in self.faults().items():
            fault()
            self.counts[name] += 1
            self._rest(1.0)
        first = self._measure()
        began = time.monotonic()
        while time.monotonic() < began + self._life:
            self._do(self.faults())
            self._rest(self._rng.uniform(1.0, 4.0))
        life = Life(time.monotonic() - began, first, self._measure())
        self.lives.append(life)
        self.run.fail_if(growth_of(life), "over one life")

    def die(self) -> None:
        """End it some times at short intervals."""
        for _ in range(self._deaths):
            self._rest(self._rng.uniform(0.0, 2.0))
            self._do(self.ends())
        self._measure()

    def _do(self, choice: dict[str, Callable[[], None]]) -> None:
        name = self._rng.choice(sorted(choice))
        choice[name]()
        self.counts[name] += 1

    def _measure(self) -> Size:
        """Check everything at rest, and return how large it is then."""
        self.run.check_settled()
        state = self.daemon.root / "state"
        self.database_sizes.append(sum(path.stat().st_size for path in state.glob("ostler.db*")))
        return size(self.daemon.running.pid)

    def _rest(self, seconds: float) -> None:
        try:
            code = self.daemon.running.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise Violation(f"the daemon has ended with {code}:\n{self.daemon.log[-5000:]}")

    def _suspend(self) -> None:
        self.daemon.signal(signal.SIGSTOP)
        threading.Event().wait(self._rng.uniform(0.5, 5.0))
        self.daemon.signal(signal.SIGCONT)

    def _reload(self) -> None:
        for _ in range(self._rng.randint(1, 5)):
            spacing, running = self._rng.choice((0.05, 0.1, 0.2)), self._rng.randint(2, 10)
            config = self._config.replace("max_operations = 8", f"max_operations = {running}\nspacing = {spacing}")
            self.daemon.configure(config)
            self.daemon.signal(signal.SIGHUP)
            self._rest(self._rng.uniform(0.0, 0.5))

    def _fill_disk(self) -> None:
        self.disk.fill()
        self._rest(self._rng.uniform(0.5, 4.0))
        self.disk.relieve()

    def _kill_on_full_disk(self) -> None:
        self.disk.fill()
        self._rest(self._rng.uniform(0.0, 2.0))
        self.daemon.kill()
        self.disk.relieve()
        self._start_again()

    def _kill(self) -> None:
        self.daemon.kill()
        self._start_again()

    def _kill_start(self) -> None:
        self.daemon.kill()
        self.run.check_killed()
        self.daemon.start(wait=False)
        threading.Event().wait(self._rng.uniform(0.0, 0.4))
        self.daemon.kill()
        self._start_again()

    def _stop(self) -> None:
        self.daemon.signal(signal.SIGTERM)
        try:
            code = self.daemon.running.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Violation(f"a stop takes longer than {_STOP_TIMEOUT:.0f} s:\n{self.daemon.log[-5000:]}") from None
        if code != 0:
            raise Violation(f"a stop ended with {code}:\n{self.daemon.log[-5000:]}")
        self._start_again()

    def _start_again(self) -> None:
        self.run.figures.kills += 1
        self.run.check_killed()
        self.daemon.start(wait=False)
        self.run.wait_ready()

    def check_database(self, seconds: float) -> None:
        """Raise if the database has grown beyond what is kept."""
        middle, last = self.database_sizes[len(self.database_sizes) // 2], self.database_sizes[-1]
        if seconds >= _MIN_TIME_FOR_DATABASE and last > _DATABASE_FACTOR * middle + _DATABASE_MARGIN:
            raise Violation(f"the database has grown from {middle:,} bytes at half time to {last:,}")

    def __str__(self) -> str:
        """Return what it came to."""
        lives = [
            f"  {life.seconds:4.0f} s: {life.first.memory / 2**20:.1f} to {life.last.memory / 2**20:.1f} MiB, "
            f"{life.first.files} to {life.last.files} descriptors, {life.first.threads} to {life.last.threads} threads"
            for life in self.lives
        ]
        faults = ", ".join(f"{count} x {name}" for name, count in sorted(self.counts.items()))
        sizes = [f"{each / 2**20:.1f}" for each in self.database_sizes]
        return "\n".join(
            [str(self.run.figures), f"faults: {faults}", "lives:", *lives, f"database, MiB: {' '.join(sizes)}"]
        )


def growth_of(life: Life) -> list[str]:
    """Return what a daemon has too much more of than it had."""
    first, last = life.first, life.last
    limits = (("bytes of memory", MEMORY_MARGIN), ("descriptors", FILES_MARGIN), ("threads", THREADS_MARGIN))
    return [
        f"it has grown from {before:,} to {after:,} {what} in {life.seconds:.0f} s"
        for (what, margin), before, after in zip(limits, first, last, strict=True)
        if after > before + margin
    ]


def soak(made: Soak, seconds: float, report: Callable[[str], object] = lambda _: None) -> Soak:
    """Soak for so long, and at least one round; return it.

    Raises:
        Violation: A promise was broken, or it has grown.
    """
    began = time.monotonic()
    try:
        with made.run:
            made.run.begin()
            while True:
                made.live()
                made.die()
                report(f"{time.monotonic() - began:.0f} s: {made.run.figures}")
                if time.monotonic() - began >= seconds:
                    break
            made.check_database(time.monotonic() - began)
    finally:
        made.disk.close()
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, and say what came of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long; ten by default")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)), help="by default a new one")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    try:
        done = soak(Soak(f"{given.seed}/soak"), given.minutes * 60, lambda text: print(text, flush=True))
    except AssertionError as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")
        return 1
    print(done)
    if not done.disk.is_mounted:
        print("no disk was full: a small file system cannot be mounted here (needs root)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
