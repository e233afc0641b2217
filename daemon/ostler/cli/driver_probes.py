"""`ostler check --probe`: asks each driver whether it could work on this host, each in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from ostler.bounds import WHY_LIMIT, truncate
from ostler.cli.results import DriverProbe
from ostler.config.layers import dotted
from ostler.config.secret_references import PLACEHOLDER
from ostler.driver import Driver
from ostler.errors import error_line
from ostler.redaction import redact
from ostler.time_text import format_seconds

if TYPE_CHECKING:
    from ostler.plugins import ResolvedObject
    from ostler.service.resolve import ResolvedConfiguration

_AT_ONCE = 8
"""How many drivers are asked at the same time."""
_ANSWER_LIMIT = 65536
"""Bytes of an answer that are read; a driver that says more is cut off."""
_REASON_LIMIT = 20


class _Child:
    """A process that asks one driver.

    Args:
        service: Its service.
        driver: Its name.
        loaded: The driver.
        options: Its validated options.
        timeout: Seconds after which it is killed.
    """

    def __init__(self, service: str, driver: str, loaded: ResolvedObject, options: Any, timeout: float) -> None:
        self.service, self.driver, self.timeout = service, driver, timeout
        self.started_at = time.monotonic()
        self.answer = b""
        self.reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that plugins have started: see `timeout`
            self.pid = os.fork()
        if not self.pid:
            _ask(loaded, options, writer)
        os.close(writer)
        os.set_blocking(self.reader, False)
        self.process = os.pidfd_open(self.pid)

    @property
    def time_left(self) -> float:
        """Seconds until it is killed."""
        return self.started_at + self.timeout - time.monotonic()

    def read(self) -> bool:
        """Read what it has written; return whether the answer is complete or will never be."""
        with suppress(BlockingIOError):
            while len(self.answer) < _ANSWER_LIMIT and (data := os.read(self.reader, 4096)):
                self.answer += data
        has_ended = bool(_is_readable(self.process))
        return has_ended or self.answer.endswith(b"\n") or len(self.answer) >= _ANSWER_LIMIT

    def end(self) -> DriverProbe:
        """Kill it with all that it has started, and return the result."""
        is_late = self.time_left <= 0 and not self.answer.endswith(b"\n")
        has_ended = _is_readable(self.process)
        with suppress(ProcessLookupError, PermissionError):  # it is the leader of its group from its first line on
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.reader)
        os.close(self.process)
        reasons = self._reasons(is_late, has_ended, status)
        state = "failed" if reasons else "ok"
        seconds = round(time.monotonic() - self.started_at, 3)
        return DriverProbe(service=self.service, driver=self.driver, state=state, reasons=reasons, seconds=seconds)

    def _reasons(self, is_late: bool, has_ended: bool, status: int) -> list[str]:
        with suppress(ValueError):
            found = json.loads(self.answer)
            return [truncate(str(each), WHY_LIMIT) for each in found[:_REASON_LIMIT]]
        if is_late:
            return [f"its `probe` did not return within {format_seconds(self.timeout)}"]
        if has_ended and os.WIFSIGNALED(status):
            return [f"its `probe` ended the process by {signal.Signals(os.WTERMSIG(status)).name}"]
        return ["its `probe` ended the process without an answer"]


def probe_drivers(resolved: ResolvedConfiguration, timeout: float) -> list[DriverProbe]:
    """Ask all drivers of the enabled services; blocks until all have answered. On the main thread.

    A driver that hangs, crashes or prints harms neither the others nor this process.

    Args:
        resolved: The configuration.
        timeout: Seconds for each driver.
    """
    drivers = [(spec.topic, name, *found) for spec in resolved.specs for name, found in sorted(spec.drivers.items())]
    asked = [each for each in drivers if not _why_not(*each[2:])]
    results = [
        DriverProbe(service=topic, driver=name, state="unknown", reasons=[why], seconds=0)
        for topic, name, loaded, options in drivers
        if (why := _why_not(loaded, options))
    ]
    results += _run(asked, timeout)
    return sorted(results, key=lambda result: (result.service, result.driver))


def _run(asked: list[tuple[str, str, ResolvedObject, Any]], timeout: float) -> Iterator[DriverProbe]:
    waiting, running = list(reversed(asked)), list[_Child]()
    try:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                service, driver, loaded, options = waiting.pop()
                running.append(_Child(service, driver, loaded, options, timeout))
            _wait(running)
            ended = [child for child in running if child.read() or child.time_left <= 0]
            for child in ended:
                running.remove(child)
                yield child.end()
    finally:
        for child in running:  # Ctrl-C
            child.end()


def _wait(running: list[_Child]) -> None:
    with selectors.DefaultSelector() as selector:
        for child in running:
            selector.register(child.reader, selectors.EVENT_READ)
            selector.register(child.process, selectors.EVENT_READ)
        selector.select(max(0.0, min(child.time_left for child in running)))


def _is_readable(descriptor: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(0))


def _why_not(loaded: ResolvedObject, options: Any) -> str:
    """Return why a driver cannot be asked; empty if it can."""
    probe = getattr(loaded.cls, "probe", None)
    if probe is None or getattr(probe, "__func__", None) is vars(Driver)["probe"].__func__:
        return "it has no `probe` of its own"
    if _has_placeholder(options.model_dump()):
        return "one of its secrets is a credential, which exists only inside the unit"
    return ""


def _has_placeholder(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_placeholder, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_placeholder, value))
    read = getattr(value, "get_secret_value", None)
    return read is not None and read() == PLACEHOLDER


def _ask(loaded: ResolvedObject, options: Any, writer: int) -> NoReturn:
    """Ask the driver, and end this process. In the forked child only."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        reasons = _call_probe(loaded.cls, options)
        os.write(writer, json.dumps([redact(reason) for reason in reasons]).encode()[: _ANSWER_LIMIT - 1] + b"\n")
        code = 0
    finally:
        os._exit(code)


def _call_probe(cls: Any, options: Any) -> list[str]:
    try:
        found = list(cls.probe(options) or ())
        places = [((place,) if isinstance(place, str) else tuple(place), str(what)) for place, what in found]
    except BaseException as error:  # noqa: BLE001 - code of a plugin, in a process of its own
        return [error_line(error)]
    return [truncate(f"{dotted(place)}: {what}" if any(place) else what, WHY_LIMIT) for place, what in places]
