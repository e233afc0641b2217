import logging
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    """The root logger is the process's, so each test gives it back as it was."""
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
