"""Signals that a plugin takes from the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from ostler.daemon.process.signal_guard import SignalGuard

NUMBER = signal.SIGUSR2


def steal_by_handler() -> None:
    signal.signal(NUMBER, signal.SIG_IGN)


def steal_by_descriptor() -> None:
    signal.set_wakeup_fd(-1)


@pytest.mark.parametrize("steal", [steal_by_handler, steal_by_descriptor])
async def test_a_signal_that_was_taken_arrives_again(steal: Callable[[], None], caplog) -> None:
    got = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(NUMBER, got.set)
    guard = SignalGuard([NUMBER])
    for _ in range(2):
        steal()
        guard.check()
    guard.check()
    os.kill(os.getpid(), NUMBER)
    await asyncio.wait_for(got.wait(), 10)
    loop.remove_signal_handler(NUMBER)
    assert caplog.text.count("a plugin or library replaced the daemon's") == 1
