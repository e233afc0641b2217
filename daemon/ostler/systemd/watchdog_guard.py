"""Decides whether to send a watchdog ping.

systemd kills a daemon that has not pinged for `WatchdogSec`. A ping from a timer proves only that a timer runs,
so each part that must be alive records evidence, and the guard reports whose evidence is too old.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import msgspec

from ostler.clock import Clock
from ostler.errors import join_words
from ostler.time_text import format_seconds


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


def ping_interval(interval: float) -> float:
    """Return how many seconds to leave between two looks at the evidence.

    A quarter of the interval: one look may come late and another find evidence just missing, and there is still time.
    """
    return interval / 4


def signal_max_age(interval: float) -> float:
    """Return how many seconds evidence stays good, unless a source says otherwise.

    Half the interval, so that a hang is acted on after one and a half intervals at the latest.
    """
    return interval / 2


class LivenessSignal:
    """One kind of evidence that is left by calling `touch`, for a source that has no age of its own.

    Args:
        clock: Where the time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_seen_at = clock.monotonic()

    def touch(self) -> None:
        """Record that the source is alive. Any thread."""
        self._last_seen_at = self._clock.monotonic()

    def age(self) -> float:
        """Return how many seconds ago the source was last seen alive; at first, since it was made. Any thread."""
        return self._clock.monotonic() - self._last_seen_at


class StaleSignal(msgspec.Struct, frozen=True):
    """Evidence that is too old: whose, how old it is and how old it may be, in seconds."""

    name: str
    age: float
    max_age: float

    def __str__(self) -> str:
        return f"{self.name} (silent for {format_seconds(self.age, 2)}, the limit is {format_seconds(self.max_age)})"


class WatchdogVerdict(msgspec.Struct, frozen=True):
    """The result of checking the evidence.

    Args:
        stale: All evidence that is too old now, by name.
        newly_stale: Those of `stale` that were still alive in the previous check.
        recovered: Names that were missing in the previous check and are alive again.
    """

    stale: list[StaleSignal]
    newly_stale: list[StaleSignal]
    recovered: list[str]

    @property
    def is_alive(self) -> bool:
        """Whether a ping may be sent."""
        return not self.stale

    def __str__(self) -> str:
        return f"no response from {join_words(self.stale)}" if self.stale else "alive"


class _SignalSource(msgspec.Struct):
    age: Callable[[], float]
    max_age: float
    forgiven: float = 0.0
    """Seconds of the age in which this process did not run."""
    last_age: float = 0.0
    """The age when it was last asked for: a lower one is new evidence."""

    def effective_age(self) -> float:
        """Return the age without what is forgiven; infinite when it cannot be said."""
        try:
            age = self.age()
        except Exception:  # noqa: BLE001 - the source counts as not alive, and the others are still asked
            return float("inf")
        if age < self.last_age:
            self.forgiven = 0.0
        self.last_age = age
        return age - self.forgiven


class WatchdogGuard:
    """Holds the evidence of everything that must be alive and judges it; sends nothing itself. On the loop's thread.

    Args:
        interval: Seconds of `watchdog_interval`; the limit of a source that names none is derived from it.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._sources: dict[str, _SignalSource] = {}
        self._stale_names: set[str] = set()

    @property
    def ping_interval(self) -> float:
        """Seconds between two checks."""
        return ping_interval(self.interval)

    @property
    def names(self) -> list[str]:
        """Whose evidence is asked for, sorted."""
        return sorted(self._sources)

    def register(self, name: str, age: Callable[[], float], max_age: float | None = None) -> None:
        """Ask for evidence from now on; a source of the same name is replaced.

        Args:
            name: Whose evidence, as an operator knows it: `"loop"`, `"store"`, `"rpc"`, `"service volume"`.
            age: Returns how many seconds ago it was last seen alive; must not block. If it raises, the source counts as
                not alive.
            max_age: How old it may be, in seconds; half the interval by default.
        """
        self._sources[name] = _SignalSource(age, signal_max_age(self.interval) if max_age is None else max_age)
        self._stale_names.discard(name)

    def register_signal(self, name: str, clock: Clock, max_age: float | None = None) -> LivenessSignal:
        """Ask for evidence and return the `LivenessSignal` by which it is left; see `watch`."""
        evidence = LivenessSignal(clock)
        self.register(name, evidence.age, max_age)
        return evidence

    def forgive(self, seconds: float) -> None:
        """Judge evidence as if so much time had not passed, until there is new one.

        For time in which this process did not run: nobody could leave evidence.
        """
        for source in self._sources.values():
            source.forgiven += min(seconds, source.effective_age())

    def unregister(self, name: str) -> None:
        """Ask no more for somebody's evidence: its service stops, for instance. An unknown name is ignored."""
        self._sources.pop(name, None)
        self._stale_names.discard(name)

    def poll(self) -> WatchdogVerdict:
        """Check all evidence. Without sources, the daemon counts as alive."""
        found = [self._check_signal(name) for name in self.names]
        missing = [entry for entry in found if entry is not None]
        names = {entry.name for entry in missing}
        finding = WatchdogVerdict(
            stale=missing,
            newly_stale=[entry for entry in missing if entry.name not in self._stale_names],
            recovered=sorted(self._stale_names - names),
        )
        self._stale_names = names
        return finding

    def _check_signal(self, name: str) -> StaleSignal | None:
        source = self._sources[name]
        age = source.effective_age()
        return StaleSignal(name, age, source.max_age) if age > source.max_age else None
