"""Protects the daemon's log lines from what plugins and libraries do to `logging`, and reports such changes."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

from ostler.log.followers import FOLLOWERS
from ostler.log.handlers import SafeHandler
from ostler.time_text import format_moment

_ROOT_NAME = "ostler"
_WARNING_INTERVAL = 60.0
"""Seconds between two warnings about repeated changes."""
_log = logging.getLogger("ostler.log")
_GET_TRACEBACK = BaseException.__dict__["__traceback__"].__get__


class GuardedLogger(logging.Logger):
    """A logger of the daemon while a guard is active: other code can add handlers to it, and remove nothing.

    `dictConfig` disables all loggers that it does not know, `basicConfig(force=True)` takes the root's handlers,
    `logging.disable` and `setLevel` silence: none of it counts here. No lock of `logging` is taken either, which a
    `dictConfig` that hangs would hold.
    """

    guard: ClassVar[LogGuard | None] = None

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - its name in `logging`
        """Return whether the levels that the operator chose let a line pass."""
        guard = GuardedLogger.guard
        if guard is None:
            return super().isEnabledFor(level)
        return level >= guard.level_of(self.name) or level >= FOLLOWERS.level

    def _log(
        self,
        level: int,
        msg: object,
        args: logging._ArgsType,
        exc_info: logging._ExcInfoType | None = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        """Take an error's traceback from its slot: a class of a plugin may have a property in its place that raises."""
        if exc_info is not None and issubclass(type(exc_info), BaseException):
            error = cast("BaseException", exc_info)
            exc_info = (type(error), error, _GET_TRACEBACK(error))
        super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)

    def makeRecord(self, *args: Any, **options: Any) -> logging.LogRecord:  # noqa: N802 - its name in `logging`
        """Make a record, by the factory that a plugin may have set if that works."""
        try:
            return super().makeRecord(*args, **options)
        except Exception as error:  # noqa: BLE001 - a failing factory of other code must not fail the caller
            if GuardedLogger.guard is not None:
                GuardedLogger.guard.record_handler_failure(error)
            name, level, path, line, text, given, exc_info, function, extra, stack = args  # as `logging` calls it
            record = logging.LogRecord(name, level, path, line, text, given, exc_info, function, stack)
            record.__dict__.update(extra or {})
            return record

    def handle(self, record: logging.LogRecord) -> None:
        """Give a record to our handler, and to those of others unless they have been turned off."""
        guard = GuardedLogger.guard
        if guard is None:
            super().handle(record)
            return
        if record.levelno < guard.level_of(self.name):  # somebody follows the log at a lower level
            guard.handler.offer(record, is_logged=False)
            return
        guard.handler.handle(record)
        try:
            if not self.disabled and record.levelno > self.manager.disable and self.filter(record):
                self._call_other_handlers(record, guard.handler)
        except Exception as error:  # noqa: BLE001 - a failing handler of other code must not fail the caller
            guard.record_handler_failure(error)

    def _call_other_handlers(self, record: logging.LogRecord, own: SafeHandler) -> None:
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if handler is not own and record.levelno >= handler.level and not writes_to_console(handler):
                    handler.handle(record)
            logger = logger.parent if logger.propagate else None


class TemporaryLevel(NamedTuple):
    """A level that ends by itself.

    Attributes:
        level: The number of the level.
        base: The level that the logger has afterwards.
        until: The monotonic time at which it ends.
    """

    level: int
    base: int
    until: float


class LogGuard:
    """Keeps the daemon's loggers and the root's handler as they were set up, and reports changes.

    The thread of the writer notices a change within a second, and it is undone on a thread of its own: that needs
    the lock of `logging`, which a hanging thread may hold.

    Args:
        handler: Our handler.
        levels: The levels that were chosen, by name; of the root under the empty name.
        now: Returns monotonic time, by which temporary levels end.
    """

    def __init__(
        self, handler: SafeHandler, levels: Mapping[str, int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self.handler = handler
        self._levels = dict(levels)
        self._now = now
        self._temporary: dict[str, TemporaryLevel] = {}
        self._level_cache: dict[str, int] = {}
        self._restore_thread: threading.Thread | None = None
        self._restore_count = 0
        self._last_restore = 0.0
        self._last_warning = 0.0
        self._last_changes = ""
        self._handler_failures = 0
        self._last_failure = ""

    def record_handler_failure(self, error: Exception) -> None:
        """Record that a handler or a filter of others failed; it cannot be logged, for it would fail again."""
        self._handler_failures += 1
        self._last_failure = type(error).__name__

    def start(self) -> None:
        """Take control of the daemon's loggers."""
        GuardedLogger.guard = self
        self._guard_loggers()
        self.handler.writer.on_poll = self.check

    def stop(self) -> None:
        """Leave all loggers to `logging` again."""
        GuardedLogger.guard = None
        self.handler.writer.on_poll = None
        for logger in daemon_loggers():
            if isinstance(logger, GuardedLogger):
                logger.__class__ = logging.Logger  # type: ignore[assignment]  # mypy allows no change of a class

    def configure(self, handler: SafeHandler, levels: Mapping[str, int]) -> None:
        """Take over a new set-up."""
        self.handler = handler
        self.handler.writer.on_poll = self.check
        self._levels = dict(levels)
        for name, (level, _, until) in list(self._temporary.items()):
            self._temporary[name] = TemporaryLevel(level, self._levels.get(name, logging.NOTSET), until)
            self._levels[name] = level
            logging.getLogger(name).setLevel(level)
        self._level_cache = {}
        self._guard_loggers()

    def set_level(self, logger: str, level: int, seconds: float = 0.0) -> None:
        """Take over the level of one logger; NOTSET when it is to follow the one above it.

        Args:
            logger: Its name; empty for the root.
            level: The number of the level.
            seconds: After how long it ends, also over reloads; 0 for a level that is valid until the next reload.
        """
        earlier = self._temporary.pop(logger, None)
        if seconds:
            base = earlier.base if earlier is not None else self._levels.get(logger, logging.NOTSET)
            self._temporary[logger] = TemporaryLevel(level, base, self._now() + seconds)
        self._levels = {**self._levels, logger: level}
        self._level_cache = {}

    def remaining_times(self) -> dict[str, float]:
        """Return for how many seconds each temporary level is still valid."""
        now = self._now()
        return {name: max(0.0, each.until - now) for name, each in list(self._temporary.items())}

    def level_of(self, name: str) -> int:
        """Return the level that was chosen for a logger."""
        level = self._level_cache.get(name)
        if level is None:
            level = self._level_cache[name] = self._find_level(name)
        return level

    def _find_level(self, name: str) -> int:
        while name:
            if level := self._levels.get(name):
                return level
            name = name.rpartition(".")[0]
        return self._levels.get("", logging.INFO)

    def check(self) -> None:
        """Check for changes, and have them undone. Takes no lock."""
        self._guard_loggers()
        if self._restore_thread is not None and self._restore_thread.is_alive():
            return
        now = self._now()
        if expired := [name for name, each in list(self._temporary.items()) if each.until <= now]:
            self._start_thread(lambda: self._end_levels(expired))
        elif changes := self._find_changes():
            self._start_thread(lambda: self._restore(changes))

    def _start_thread(self, run: Callable[[], None]) -> None:
        self._restore_thread = threading.Thread(target=run, name="ostler-log-guard", daemon=True)
        self._restore_thread.start()

    def _end_levels(self, names: Sequence[str]) -> None:
        """End temporary levels: the loggers have the levels again that they had before."""
        for name in names:
            ended = self._temporary.pop(name, None)
            if ended is not None:
                self._levels = {**self._levels, name: ended.base}
                self._level_cache = {}
                logging.getLogger(name).setLevel(ended.base)
                level = logging.getLevelName(ended.level).lower()
                _log.info("the temporary log level %s of %s has ended", level, name or "all loggers")

    def describe(self) -> str:
        """Return what others have changed, in words; empty when nothing."""
        parts = []
        if self._restore_count:
            when = format_moment(self._last_restore)
            parts.append(
                f"a plugin or a library changed how this process logs {self._restore_count} times, last at {when}: "
                f"{self._last_changes}; it was undone"
            )
        if self._handler_failures:
            parts.append(
                f"handlers of plugins or libraries failed {self._handler_failures} times, last with "
                f"{self._last_failure}"
            )
        if disabled := logging.root.manager.disable:
            level = logging.getLevelName(disabled).lower()
            parts.append(
                f"a plugin or a library turned off all log messages of plugins up to level {level} (logging.disable)"
            )
        return "; ".join(parts)

    def _find_changes(self) -> list[str]:
        root = logging.root
        found = []
        if self.handler not in root.handlers:
            found.append("the daemon's handler was removed from the root logger")
        if any(map(writes_to_console, root.handlers)):
            found.append("a handler for standard error or output was added to the root logger")
        if root.level != self._levels.get("", root.level):
            found.append(f"the level of the root logger was set to {logging.getLevelName(root.level).lower()}")
        own = list(daemon_loggers())
        if any(logger.disabled for logger in own):
            found.append("loggers of the daemon were disabled")
        if any(logger.level != self._levels.get(logger.name, logging.NOTSET) for logger in own):
            found.append("levels of the daemon's loggers were changed")
        return found

    def _restore(self, changes: list[str]) -> None:
        root = logging.root
        if self.handler not in root.handlers:
            root.addHandler(self.handler)
        for handler in filter(writes_to_console, list(root.handlers)):
            root.removeHandler(handler)  # it would block the caller, repeat each line, and show secrets
        root.setLevel(self._levels.get("", root.level))
        for logger in daemon_loggers():
            logger.disabled = False
            logger.setLevel(self._levels.get(logger.name, logging.NOTSET))
        self._restore_count, self._last_restore, self._last_changes = (
            self._restore_count + 1,
            time.time(),
            ", ".join(changes),
        )
        if time.monotonic() - self._last_warning >= _WARNING_INTERVAL or not self._last_warning:
            self._last_warning = time.monotonic()
            text = "a plugin or a library changed how this process logs: %s; it was undone, the log still goes to %s"
            _log.warning(text, self._last_changes, self.handler.destination())

    def _guard_loggers(self) -> None:
        for logger in daemon_loggers():
            if type(logger) is logging.Logger:
                logger.__class__ = GuardedLogger


def daemon_loggers() -> Iterator[logging.Logger]:
    """Return the loggers of the daemon that exist by now."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (name == _ROOT_NAME or name.startswith(f"{_ROOT_NAME}.")):
            yield logger


def writes_to_console(handler: logging.Handler) -> bool:
    """Return whether a handler is a plain one for standard error or output, where our lines come already."""
    streams = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return type(handler) is logging.StreamHandler and any(handler.stream is stream for stream in streams)
