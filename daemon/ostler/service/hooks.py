"""Calling a hook of a manager, within a time and with an error that names it, and checking what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ostler import fork
from ostler.aio import WorkerPool
from ostler.bounds import WHY_LIMIT, shown, text_of, type_name_of
from ostler.errors import ServiceError, describe, is_a
from ostler.log.defects import Defects
from ostler.redaction import SECRETS, redact

_LINES_LIMIT = 20
_WHOLE = 2**31


class HookFailed(ServiceError):
    """Raised when a hook of a manager raised, or did not come back in time; the cause is chained."""


class HookTimeout(HookFailed):
    """Raised when a hook of a manager did not come back in time; what runs in a thread still runs."""


async def call_hook(
    topic: str, name: str, hook: Callable[..., Any], *args: Any, pool: WorkerPool, timeout: float, defects: Defects
) -> Any:
    """Call a hook and return what it returns. On the loop.

    A `def` runs in the pool, an `async def` on the loop. Whatever it raises, SystemExit and KeyboardInterrupt included,
    becomes `HookFailed`; `defects` logs its traceback, unless it is an expected error. When it outlives `timeout`
    seconds a coroutine is cancelled, and a thread is left behind.

    Raises:
        HookFailed: The hook raised.
        HookTimeout: It did not come back.
        asyncio.CancelledError: The caller was cancelled meanwhile.
    """
    limit, where = asyncio.timeout(timeout), f"{name} of service {topic}"
    try:
        async with limit:
            if asyncio.iscoroutinefunction(hook):
                result = await _contain(hook, *args)
            else:
                result = await pool.run(lambda: hook(*args), label=f"{topic}.{name}")
            defects.worked(where)
            return result
    except asyncio.CancelledError:
        raise
    except Exception as error:
        # A hook may raise a TimeoutError of its own, of a socket for example: that one did come back.
        if is_a(error, TimeoutError) and limit.expired():
            raise HookTimeout(
                f"{name} of service {topic} did not come back within {timeout:g} s",
                hint="see `ostler dump` for where it hangs, or raise `start_timeout`",
                service=topic,
                hook=name,
            ) from error
        defects.tell(where, error)
        raise HookFailed(f"{where} failed: {describe(error)}", service=topic, hook=name) from error


async def _contain(hook: Callable[..., Any], *args: Any) -> Any:
    try:
        result = await hook(*args)
    except (SystemExit, KeyboardInterrupt) as error:  # would stop the loop
        fork.leave_if_child(error)
        raise RuntimeError(f"{type_name_of(error)} was raised: {text_of(error)}") from error
    except asyncio.CancelledError as error:
        fork.leave_if_child(error)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Nobody cancelled this task: the hook waited for something that was cancelled. Passed on as it is, it would
        # look as if the whole start had been cancelled, which is no failure.
        raise RuntimeError("it waited for something that was cancelled") from error
    fork.leave_if_child()
    return result


def problem_lines(answer: object) -> list[str]:
    """Return the lines of an answer of `Manager.problems`, those that can be shown.

    Args:
        answer: What the manager returned: sentences, or None for nothing.

    Raises:
        TypeError: It is something else.
    """
    if answer is None:
        return []
    if type(answer) is not list and type(answer) is not tuple:
        raise TypeError(f"{shown(answer, 80)} is no list")
    lines = [_line(line) for line in answer[:_LINES_LIMIT]]
    if len(answer) > _LINES_LIMIT:
        lines.append(f"... ({len(answer) - _LINES_LIMIT} more)")
    return lines


def _line(line: object) -> str:
    text = SECRETS.cut(text_of(line, _WHOLE), WHY_LIMIT)
    return redact(text)
