"""Calls the notification hooks of plugins: `ostler_started` and `ostler_stopping`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ostler.aio import WorkerPool
from ostler.time_text import format_seconds

if TYPE_CHECKING:
    from ostler.daemon.startup.step_tracker import StepTracker
    from ostler.plugins import PluginHost

_log = logging.getLogger(__name__)


async def call_plugin_hooks(
    plugins: PluginHost, hook: str, host: str, timeout: float, step_tracker: StepTracker
) -> list[str]:
    """Call a hook of all plugins, on a thread: one that hangs must not block the loop. On the loop.

    Args:
        plugins: The plugins; they tell `step_tracker` whose hook runs.
        hook: The name of the hook.
        host: The name of this host, the argument of the hook.
        timeout: Seconds that the hooks of all plugins may take.
        step_tracker: The current step of the start or stop.

    Returns:
        What hung, a line; it is left running.
    """
    pool = WorkerPool("ostler-hooks", 1)
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await pool.run(lambda: plugins.call_hooks(hook, host=host), label=hook)
    except TimeoutError:
        text = f"{step_tracker.current_step or hook} did not return within {format_seconds(timeout)}"
        _log.error("%s; no longer waiting for it", text)
        return [text]
    finally:
        step_tracker("")
        pool.close()
    return []
