"""What the daemon is doing right now, for `ostler dump` and SIGUSR2."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from types import FrameType
from typing import Any

_MAX_FRAMES = 40


def thread_stacks() -> dict[str, list[str]]:
    """Return the stack of every thread by name, outermost call first. Any thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(ident, 'unknown')} ({ident})": _format_stack(frame)
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - the only way to see other threads
    }


def task_stacks() -> dict[str, list[str]]:
    """Return where every task of the running loop waits, by name. On the loop."""
    stacks = {}
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=_MAX_FRAMES)
        stacks[task.get_name()] = [_format_frame(frame) for frame in frames]
    return stacks


def format_dump(value: Any, indent: int = 0) -> str:
    """Return a dump for people: nested dictionaries and lists as indented lines."""
    pad = "  " * indent
    if isinstance(value, dict):
        return "\n".join(
            f"{pad}{key}:\n{format_dump(item, indent + 1)}" if isinstance(item, dict | list) else f"{pad}{key}: {item}"
            for key, item in value.items()
        )
    if isinstance(value, list):
        return "\n".join(format_dump(item, indent) for item in value)
    return f"{pad}{value}"


def _format_stack(frame: FrameType) -> list[str]:
    return [
        f"{entry.filename}:{entry.lineno} {entry.name}" for entry in traceback.extract_stack(frame, limit=_MAX_FRAMES)
    ]


def _format_frame(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
