"""Daemons for the functional tests; all are gone at the end of a test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon_process import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., DaemonProcess]]:
    """Return a function that makes a daemon; it is not started yet."""
    made: list[DaemonProcess] = []

    def make(config: str = "", environ: Mapping[str, str] | None = None) -> DaemonProcess:
        made.append(DaemonProcess(config, environ))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()
