"""Notification hooks run on a thread, within a time."""

import threading
from types import SimpleNamespace

import pytest

from ostler.daemon.plugin_hooks import call_plugin_hooks
from ostler.daemon.startup.step_tracker import StepTracker


async def test_the_hooks_get_the_name_of_the_host_on_a_thread_of_their_own() -> None:
    calls = []

    def call_hooks(hook, *, host):
        calls.append((hook, host, threading.current_thread() is threading.main_thread()))

    steps = StepTracker("starting")
    steps("something before")
    plugins = SimpleNamespace(call_hooks=call_hooks)
    assert await call_plugin_hooks(plugins, "ostler_started", "node1", 5.0, steps) == []
    assert calls == [("ostler_started", "node1", False)]
    assert steps.current_step == ""


@pytest.mark.virtual_time(stall_timeout=0.15)
async def test_a_hook_that_hangs_is_named_and_left_behind(caplog) -> None:
    gate, steps = threading.Event(), StepTracker("starting")

    def call_hooks(hook, *, host):
        steps(f"{hook} of plugin lamps")
        gate.wait(20)

    try:
        hung = await call_plugin_hooks(SimpleNamespace(call_hooks=call_hooks), "ostler_stopping", "node1", 5.0, steps)
        assert hung == ["ostler_stopping of plugin lamps did not return within 5s"]
        assert "no longer waiting for it" in caplog.text
    finally:
        gate.set()
