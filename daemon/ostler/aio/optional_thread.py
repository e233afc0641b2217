"""Threads that something is better done with than without, on a machine that may have no more of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


def start_optional_thread(target: Callable[..., Any], name: str, *arguments: Any) -> threading.Thread | None:
    """Start a daemon thread; return None, after a line in the log, when the machine has none. Any thread.

    Args:
        target: What it runs.
        name: Its name.
        arguments: Passed to `target`.
    """
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError):  # no memory, or the limit of tasks is reached
        _log.warning("the thread %s cannot be started: raise TasksMax, or free memory; going on without it", name)
        return None
    return thread
