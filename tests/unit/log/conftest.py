import logging
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(autouse=True)
def _log_as_before(log_as_before):
    """The root logger is the process's."""


@pytest.fixture
def record() -> Callable[..., logging.LogRecord]:
    """Make a log record as `logging` would, with what came in `extra` as attributes."""

    def make(msg="a line", *args, level=logging.INFO, name="ostler.test", exc_info=None, **extra):
        return logging.getLogger(name).makeRecord(
            name, level, "/src/module.py", 7, msg, args, exc_info, "function", extra or None
        )

    return make


@pytest.fixture
def plain_logger() -> Iterator[logging.Logger]:
    """A logger at debug whose lines go nowhere but to handlers of the test."""
    logger = logging.getLogger("ostler.volume")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.propagate = True
