"""Finds code that blocks the event loop: a thread looks at the loop's stack when one of its turns takes long.

It measures, and does not guess: nothing is reported that was not seen on the stack. Code in C that holds the
interpreter's lock stops this thread too and is not seen; the watchdog notices when that takes long.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

import msgspec

from ostler import log
from ostler.aio.optional_thread import start_optional_thread
from ostler.time_text import format_seconds

_log = logging.getLogger(__name__)
BUSY_INTERVAL = 0.05
"""Seconds between two looks at a loop that works; a turn of twice that is long."""
IDLE_INTERVAL = 0.2
LOG_INTERVAL = 60.0
"""Seconds between two lines on the same place."""
PROBLEM_LIFETIME = 600.0
"""Seconds for which a place is shown as a problem after it has blocked the loop."""
HANG_TIME = 5.0
"""Seconds for which a turn lasts that counts as hung: it may never end, and nothing else can say where it is."""
_MAX_PLACES = 100
_MAX_DEPTH = 200
_UNNAMED_TASK = "starting"
"""What stands for the task of a request in its first step; see `eager_start`."""


class TurnSelector(selectors.DefaultSelector):
    """The selector of a loop, which counts the loop's turns. It costs a turn half a microsecond."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.is_waiting = False

    def select(self, timeout: float | None = None) -> Any:
        """Wait for the next turn."""
        self.is_waiting = True
        try:
            return super().select(timeout)
        finally:
            self.turns += 1
            self.is_waiting = False


class BlockingPlace(msgspec.Struct):
    """A place in which the loop was blocked: how often, for how long at most, and when last (monotonic clock)."""

    text: str
    is_plugin: bool
    count: int = 0
    longest: float = 0.0
    last_at: float = 0.0
    logged_at: float = -LOG_INTERVAL


class LoopMonitor:
    """Watches the turns of a loop, and names the code in which one takes long.

    Args:
        selector: The selector of the loop.
        loop: The loop, which runs on the thread that creates this.
        plugin_packages: Returns the top packages of plugins, managers and drivers.
        monotonic: The time.
    """

    def __init__(
        self,
        selector: TurnSelector,
        loop: asyncio.AbstractEventLoop,
        plugin_packages: Callable[[], Collection[str]] = frozenset,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plugin_packages = plugin_packages
        self._selector = selector
        self._loop = loop
        self._monotonic = monotonic
        self._thread_id = threading.get_ident()
        self._schedstat = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._places: dict[str, BlockingPlace] = {}
        self._stop = threading.Event()
        self._turn = -1
        self._turn_seen_at = 0.0
        self._waited_before = 0.0
        self._samples: Counter[tuple[str, bool]] = Counter()
        self._hang_logged = False
        self.blocked_count = 0
        self.blocked_seconds = 0.0
        """How often the loop was blocked, and for how long all together."""

    def start(self) -> None:
        """Begin to watch. On the loop."""
        start_optional_thread(self._run, "ostler-loop-monitor")

    def stop(self) -> None:
        """End the thread, soon. Any thread."""
        self._stop.set()

    def problems(self) -> list[str]:
        """Return a line for each place in the code of a plugin that has blocked the loop lately. Any thread."""
        since = self._monotonic() - PROBLEM_LIFETIME
        recent = [each for each in list(self._places.values()) if each.is_plugin and each.last_at >= since]
        return [
            f"the event loop was blocked {_times(each.count)}, "
            f"for up to {format_seconds(each.longest, 2)}, by {each.text}"
            for each in recent
        ]

    def _run(self) -> None:
        interval = BUSY_INTERVAL
        while not self._stop.wait(interval):
            interval = self.look()

    def look(self) -> float:
        """Look at the loop once; return the seconds until the next time. On the monitor's thread."""
        now, turn, is_waiting = self._monotonic(), self._selector.turns, self._selector.is_waiting
        if turn != self._turn or is_waiting:
            if self._samples:
                self._end_block(now)
            is_idle = turn == self._turn
            self._turn, self._turn_seen_at = turn, now
            return IDLE_INTERVAL if is_idle else BUSY_INTERVAL
        if not self._samples:
            self._waited_before = self._cpu_wait()
        if frame := sys._current_frames().get(self._thread_id):  # noqa: SLF001 - the only way to see another thread
            if self._selector.turns == turn:
                self._samples[self._place(frame)] += 1
            del frame
        if now - self._turn_seen_at >= HANG_TIME and not self._hang_logged:
            self._hang_logged = True
            self._log_hang(now)
        return BUSY_INTERVAL

    def _log_hang(self, now: float) -> None:
        """Write the stacks of all threads to the log: a loop that hangs answers neither a request nor a signal."""
        from ostler.daemon.process.stack_dump import format_dump, thread_stacks  # only where it is needed

        (text, _), _ = self._samples.most_common(1)[0] if self._samples else (("an unknown place", False), 0)
        seconds = format_seconds(now - self._turn_seen_at, 2)
        _log.error(
            "the event loop has been blocked for %s by %s, and still is; nothing is answered meanwhile",
            seconds, text, extra=log.message_id("loop-blocked") | log.detail(format_dump(thread_stacks())),
        )  # fmt: skip

    def _end_block(self, now: float) -> None:
        """Record that a turn took long, if the loop's thread had a processor and was seen more than once."""
        samples, self._samples, self._hang_logged = self._samples, Counter(), False
        seconds = now - self._turn_seen_at
        starved = self._cpu_wait() - self._waited_before > seconds / 2
        if samples.total() < 2 or starved:
            return
        self.blocked_count += 1
        self.blocked_seconds += seconds
        (text, is_plugin), _ = samples.most_common(1)[0]
        if text not in self._places and len(self._places) >= _MAX_PLACES:
            self._places.clear()
        place = self._places.setdefault(text, BlockingPlace(text, is_plugin))
        place.count, place.longest, place.last_at = place.count + 1, max(place.longest, seconds), now
        if now - place.logged_at >= LOG_INTERVAL:
            place.logged_at = now
            _log.log(
                logging.WARNING if is_plugin else logging.INFO,
                "the event loop was blocked for %s by %s (%s so far)%s",
                format_seconds(seconds, 2), text, _times(place.count),
                "; move that to a method that is not async, or await it" if is_plugin else "",
                extra=log.message_id("loop-blocked"),
            )  # fmt: skip

    def _place(self, frame: FrameType) -> tuple[str, bool]:
        """Return where the loop is: the innermost line of a plugin, or of whatever runs, and whether it is that."""
        packages, innermost, depth = self.plugin_packages(), frame, 0
        current: FrameType | None = frame
        while current is not None and depth < _MAX_DEPTH:
            name = current.f_globals.get("__name__", "")
            if isinstance(name, str) and name.partition(".")[0] in packages:
                inside = "" if current is innermost else f", within {_format_frame(innermost)}"
                return f"{_format_frame(current)}{inside}{self._task_text()}", True
            current, depth = current.f_back, depth + 1
        return f"{_format_frame(innermost)}{self._task_text()}", False

    def _task_text(self) -> str:
        task = asyncio.current_task(self._loop)
        name = "" if task is None else task.get_name()
        return f", task {name}" if name and name != _UNNAMED_TASK else ""

    def _cpu_wait(self) -> float:
        """Return the seconds for which the loop's thread has waited for a processor; 0 when that is not known."""
        try:
            with open(self._schedstat, "rb") as file:  # noqa: PTH123 - read while the loop is blocked
                return int(file.read().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0


def _format_frame(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
