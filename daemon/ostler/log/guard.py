"""The daemon's own lines come, whatever a plugin or a library does to `logging`, and that it did something is said."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from ostler.log.handlers import SafeHandler

_OWN = "ostler"
_SAY_EVERY = 60.0
"""Seconds between two warnings about somebody who changes it again and again."""
_log = logging.getLogger("ostler.log")
_TRACE = BaseException.__dict__["__traceback__"].__get__


class OwnLogger(logging.Logger):
    """A logger of the daemon while a guard is on duty: others can add handlers to it, and take nothing from it.

    `dictConfig` disables all loggers that it does not know, `basicConfig(force=True)` takes the root's handlers,
    `logging.disable` and `setLevel` silence: none of it counts here. No lock of `logging` is taken either, which a
    `dictConfig` that hangs would hold.
    """

    guard: ClassVar[LogGuard | None] = None

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - its name in `logging`
        """Return whether the levels that the operator chose let a line pass."""
        guard = OwnLogger.guard
        return super().isEnabledFor(level) if guard is None else level >= guard.level_of(self.name)

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
            exc_info = (type(error), error, _TRACE(error))
        super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)

    def makeRecord(self, *args: Any, **options: Any) -> logging.LogRecord:  # noqa: N802 - its name in `logging`
        """Make a record, by the factory that a plugin may have set if that works."""
        try:
            return super().makeRecord(*args, **options)
        except Exception as error:  # noqa: BLE001 - a factory of others that fails is not the trouble of who logs
            if OwnLogger.guard is not None:
                OwnLogger.guard.others_failed(error)
            name, level, path, line, text, given, exc_info, function, extra, stack = args  # as `logging` calls it
            record = logging.LogRecord(name, level, path, line, text, given, exc_info, function, stack)
            record.__dict__.update(extra or {})
            return record

    def handle(self, record: logging.LogRecord) -> None:
        """Give a record to our handler, and to those of others unless they have been turned off."""
        guard = OwnLogger.guard
        if guard is None:
            super().handle(record)
            return
        guard.handler.handle(record)
        try:
            if not self.disabled and record.levelno > self.manager.disable and self.filter(record):
                self._to_others(record, guard.handler)
        except Exception as error:  # noqa: BLE001 - a handler of others that fails is not the trouble of who logs
            guard.others_failed(error)

    def _to_others(self, record: logging.LogRecord, own: SafeHandler) -> None:
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if handler is not own and record.levelno >= handler.level and not writes_to_console(handler):
                    handler.handle(record)
            logger = logger.parent if logger.propagate else None


class LogGuard:
    """Keeps the daemon's loggers and the root's handler as they were set up, and says so when somebody changed them.

    What was changed is seen by the thread of the writer within a second, and undone on a thread of its own: that needs
    the lock of `logging`, which may be held by who hangs.

    Args:
        handler: Our handler.
        levels: The levels that were chosen, by name; of the root under the empty name.
    """

    def __init__(self, handler: SafeHandler, levels: Mapping[str, int]) -> None:
        self.handler = handler
        self._levels = dict(levels)
        self._cache: dict[str, int] = {}
        self._restoring: threading.Thread | None = None
        self._times = 0
        self._last = 0.0
        self._said = 0.0
        self._what = ""
        self._failures = 0
        self._failure = ""

    def others_failed(self, error: Exception) -> None:
        """Take note that a handler or a filter of others failed; it cannot be logged, for it would fail again."""
        self._failures += 1
        self._failure = type(error).__name__

    def begin(self) -> None:
        """Take the daemon's loggers over."""
        OwnLogger.guard = self
        self._convert()
        self.handler.writer.on_poll = self.look

    def end(self) -> None:
        """Leave all loggers to `logging` again."""
        OwnLogger.guard = None
        self.handler.writer.on_poll = None
        for logger in own_loggers():
            if isinstance(logger, OwnLogger):
                logger.__class__ = logging.Logger  # type: ignore[assignment]  # mypy allows no change of a class

    def take(self, handler: SafeHandler, levels: Mapping[str, int]) -> None:
        """Take over a new set-up."""
        self.handler = handler
        self.handler.writer.on_poll = self.look
        self._levels = dict(levels)
        self._cache = {}
        self._convert()

    def take_level(self, logger: str, level: int) -> None:
        """Take over the level of one logger; NOTSET when it is to follow the one above it."""
        self._levels = {**self._levels, logger: level}
        self._cache = {}

    def level_of(self, name: str) -> int:
        """Return the level that was chosen for a logger."""
        level = self._cache.get(name)
        if level is None:
            level = self._cache[name] = self._find_level(name)
        return level

    def _find_level(self, name: str) -> int:
        while name:
            if level := self._levels.get(name):
                return level
            name = name.rpartition(".")[0]
        return self._levels.get("", logging.INFO)

    def look(self) -> None:
        """Look whether somebody has changed something, and have it undone. Takes no lock."""
        self._convert()
        if self._restoring is not None and self._restoring.is_alive():
            return
        if changes := self._changes():
            self._restoring = threading.Thread(
                target=self._restore, args=(changes,), name="ostler-log-guard", daemon=True
            )
            self._restoring.start()

    def text(self) -> str:
        """Return what others have changed, in words; empty when nothing."""
        parts = []
        if self._times:
            when = time.strftime("%H:%M:%S", time.localtime(self._last))
            parts.append(
                f"a plugin or a library changed how this process logs {self._times} times, last at {when}: "
                f"{self._what}; it was undone"
            )
        if self._failures:
            parts.append(f"handlers of plugins or libraries failed {self._failures} times, last with {self._failure}")
        if disabled := logging.root.manager.disable:
            level = logging.getLevelName(disabled).lower()
            parts.append(f"a plugin or a library turned off all lines of plugins up to level {level} (logging.disable)")
        return "; ".join(parts)

    def _changes(self) -> list[str]:
        root = logging.root
        found = []
        if self.handler not in root.handlers:
            found.append("our handler was taken from the root logger")
        if any(map(writes_to_console, root.handlers)):
            found.append("a handler for standard error or output was added to the root logger")
        if root.level != self._levels.get("", root.level):
            found.append(f"the level of the root logger was set to {logging.getLevelName(root.level).lower()}")
        own = list(own_loggers())
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
            root.removeHandler(handler)  # it would hold up who logs, repeat each line, and show secrets
        root.setLevel(self._levels.get("", root.level))
        for logger in own_loggers():
            logger.disabled = False
            logger.setLevel(self._levels.get(logger.name, logging.NOTSET))
        self._times, self._last, self._what = self._times + 1, time.time(), ", ".join(changes)
        if time.monotonic() - self._said >= _SAY_EVERY or not self._said:
            self._said = time.monotonic()
            text = "a plugin or a library changed how this process logs: %s; it was undone, the log goes on to %s"
            _log.warning(text, self._what, self.handler.where())

    def _convert(self) -> None:
        for logger in own_loggers():
            if type(logger) is logging.Logger:
                logger.__class__ = OwnLogger


def own_loggers() -> Iterator[logging.Logger]:
    """Return the loggers of the daemon that exist by now."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (name == _OWN or name.startswith(f"{_OWN}.")):
            yield logger


def writes_to_console(handler: logging.Handler) -> bool:
    """Return whether a handler is a plain one for standard error or output, where our lines come already."""
    streams = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return type(handler) is logging.StreamHandler and any(handler.stream is stream for stream in streams)
