"""What the daemon is doing right now, for `ostler dump` and SIGUSR2."""

from __future__ import annotations

import asyncio
import sys
import threading
from itertools import islice
from types import FrameType
from typing import Any

_MAX_FRAMES = 40
MAX_THREADS = 500
MAX_TASKS = 300
"""Tasks whose stacks are shown; further ones are counted by name."""


def thread_stacks(limit: int = MAX_THREADS) -> dict[str, list[str]]:
    """Return the stack of every thread by name, outermost call first. Any thread.

    Args:
        limit: The most threads; of further ones there is only the number.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001 - the only way to see other threads
    stacks = {
        f"{names.get(ident, 'unknown')} ({ident})": _format_stack(frames[ident]) for ident in list(frames)[:limit]
    }
    return stacks if len(frames) <= limit else {**stacks, "(others)": [f"{len(frames) - limit} more threads"]}


def task_stacks(limit: int = MAX_TASKS) -> dict[str, list[str]]:
    """Return where every task of the running loop waits, by name. On the loop.

    Args:
        limit: The most tasks; of further ones there is only the number.
    """
    tasks = asyncio.all_tasks()
    stacks: dict[str, list[str]] = {}
    for number, task in enumerate(islice(tasks, limit)):
        name = task.get_name()
        stacks[name if name not in stacks else f"{name} ({number})"] = _awaited_frames(task.get_coro())
    return stacks if len(tasks) <= limit else {**stacks, "(others)": [f"{len(tasks) - limit} more tasks"]}


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


def _awaited_frames(work: Any) -> list[str]:
    """Return where a coroutine waits, with the coroutines that it awaits, outermost first."""
    lines: list[str] = []
    while work is not None and len(lines) < _MAX_FRAMES:
        prefix = next((each for each in ("cr", "ag", "gi") if hasattr(work, f"{each}_frame")), "")
        frame = getattr(work, f"{prefix}_frame", None)
        if frame is None:
            break
        lines.append(_format_frame(frame))
        work = getattr(work, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await", None)
    return lines


def _format_stack(frame: FrameType) -> list[str]:
    """Return the innermost calls of a stack; their source is not read, which would take long."""
    lines: list[str] = []
    current: FrameType | None = frame
    while current is not None and len(lines) < _MAX_FRAMES:
        lines.append(_format_frame(current))
        current = current.f_back
    return lines[::-1]


def _format_frame(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
