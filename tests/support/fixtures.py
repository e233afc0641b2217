"""Fixtures of more than one test file: what a test changes in its process, given back as it was."""

from __future__ import annotations

import logging
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_SIGNALS_OF_THE_DAEMON = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
_USED_BY_EVERYBODY = tuple(map(Path, ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/tmp")))


@pytest.fixture(autouse=True)
def machine_as_before() -> Iterator[None]:
    """Fail a test that has changed the mode or the owner of what every program of the machine uses."""
    before = [_mode_and_owner(path) for path in _USED_BY_EVERYBODY]
    yield
    for path, was in zip(_USED_BY_EVERYBODY, before, strict=True):
        assert _mode_and_owner(path) == was, f"{path} was {was} before; this test, or what ran meanwhile, changed that"


def _mode_and_owner(path: Path) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:
        return "missing"
    return f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """Give the root logger and the levels of all others back: they are the process's."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """Give back the handlers of the signals that a daemon handles."""
    before = {number: signal.getsignal(number) for number in _SIGNALS_OF_THE_DAEMON}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Return an event that holds up threads of a test; it is set at the end, so that none is left."""
    event = threading.Event()
    yield event
    event.set()
