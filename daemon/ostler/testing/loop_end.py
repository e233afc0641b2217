"""The end of a loop that was not started by `asyncio.run`."""

from __future__ import annotations

import asyncio

_CANCEL_TIMEOUT = 5.0
"""Seconds that tasks may take to end after they were cancelled."""


async def cancel_other_tasks() -> None:
    """Cancel what managers have left on the loop, as `asyncio.run` does: no loop is closed with tasks pending."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_CANCEL_TIMEOUT)
