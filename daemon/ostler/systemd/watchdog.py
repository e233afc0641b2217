"""Whether the daemon deserves a watchdog ping.

systemd kills a daemon that has not pinged for `WatchdogSec`. A ping from a timer proves only that a timer runs, so here
a ping is earned: each part that must be alive leaves evidence, and the guard says whose evidence is too old.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import msgspec

from ostler.clock import Clock
from ostler.errors import joined


def watchdog_interval(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """Return after how many seconds without a ping systemd acts; None when it does not watch this process.

    Args:
        environ: The environment: `WATCHDOG_USEC`, and `WATCHDOG_PID` with the process it is meant for, if any.
        pid: The process that asks; this one by default.
    """
    meant_for = environ.get("WATCHDOG_PID")
    if meant_for and meant_for != str(os.getpid() if pid is None else pid):
        return None
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1_000_000 if microseconds > 0 else None


def ping_spacing(interval: float) -> float:
    """Return how many seconds to leave between two looks at the evidence.

    A quarter of the interval: one look may come late and another find evidence just missing, and there is still time.
    """
    return interval / 4


def evidence_limit(interval: float) -> float:
    """Return how many seconds evidence stays good, unless a source says otherwise.

    Half the interval, so that a hang is answered at the latest after one and a half.
    """
    return interval / 2


class Evidence:
    """One kind of evidence that is left by calling `seen`, for a source that has no age of its own.

    Args:
        clock: Where the time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()

    def seen(self) -> None:
        """Note that the source has just shown life. Any thread."""
        self._last = self._clock.monotonic()

    def age(self) -> float:
        """Return how many seconds ago the source last showed life; at first, since it was made. Any thread."""
        return self._clock.monotonic() - self._last


class Missing(msgspec.Struct, frozen=True):
    """Evidence that is too old: whose, how old it is and how old it may be, in seconds."""

    name: str
    age: float
    limit: float

    def __str__(self) -> str:
        return f"{self.name} (silent for {self.age:.1f} s, allowed are {self.limit:g} s)"


class Finding(msgspec.Struct, frozen=True):
    """What a look at the evidence found.

    Args:
        missing: All evidence that is too old now, by name.
        lost: Those of `missing` that the look before had still found.
        back: Names that the look before had missed and that show life again.
    """

    missing: list[Missing]
    lost: list[Missing]
    back: list[str]

    @property
    def alive(self) -> bool:
        """Whether a ping is deserved."""
        return not self.missing

    def __str__(self) -> str:
        return f"no sign of life from {joined(self.missing)}" if self.missing else "alive"


class _Source(msgspec.Struct, frozen=True):
    age: Callable[[], float]
    limit: float


class WatchdogGuard:
    """Holds the evidence of everything that must be alive and judges it; sends nothing itself. On the loop's thread.

    Args:
        interval: Seconds of `watchdog_interval`; the limit of a source that names none is derived from it.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._sources: dict[str, _Source] = {}
        self._missing: set[str] = set()

    @property
    def spacing(self) -> float:
        """How many seconds to leave between two looks."""
        return ping_spacing(self.interval)

    @property
    def names(self) -> list[str]:
        """Whose evidence is asked for, sorted."""
        return sorted(self._sources)

    def watch(self, name: str, age: Callable[[], float], limit: float | None = None) -> None:
        """Ask for evidence from now on; a source of the same name is replaced.

        Args:
            name: Whose evidence, as an operator knows it: `"loop"`, `"store"`, `"rpc"`, `"service volume"`.
            age: Returns how many seconds ago it last showed life; must not block. If it raises, that counts as no life.
            limit: How old it may be, in seconds; half the interval by default.
        """
        self._sources[name] = _Source(age, evidence_limit(self.interval) if limit is None else limit)
        self._missing.discard(name)

    def evidence(self, name: str, clock: Clock, limit: float | None = None) -> Evidence:
        """Ask for evidence and return the `Evidence` by which it is left; see `watch`."""
        evidence = Evidence(clock)
        self.watch(name, evidence.age, limit)
        return evidence

    def forget(self, name: str) -> None:
        """Ask no more for somebody's evidence: its service stops, for instance. An unknown name is ignored."""
        self._sources.pop(name, None)
        self._missing.discard(name)

    def look(self) -> Finding:
        """Look at all evidence. A guard with nothing to watch finds the daemon alive."""
        found = [self._judge(name) for name in self.names]
        missing = [entry for entry in found if entry is not None]
        names = {entry.name for entry in missing}
        finding = Finding(
            missing=missing,
            lost=[entry for entry in missing if entry.name not in self._missing],
            back=sorted(self._missing - names),
        )
        self._missing = names
        return finding

    def _judge(self, name: str) -> Missing | None:
        source = self._sources[name]
        try:
            age = source.age()
        except Exception:  # noqa: BLE001 - whatever it is, it is no sign of life, and the others are still asked
            age = float("inf")
        return Missing(name, age, source.limit) if age > source.limit else None
