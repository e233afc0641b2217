"""Calls a hook of a manager with a time limit and an error that names it, and checks its result."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from ostler import fork
from ostler.aio import WorkerPool
from ostler.bounds import WHY_LIMIT, safe_repr, safe_str, type_name
from ostler.errors import ServiceError, error_line, is_a
from ostler.log.defects import UnexpectedErrors
from ostler.redaction import SECRETS, redact
from ostler.time_text import format_seconds

_MAX_PROBLEM_LINES = 20
_NO_LIMIT = 2**31


class HookFailed(ServiceError):
    """Raised when a hook of a manager raised, or did not return in time; the cause is chained."""


class HookTimeout(HookFailed):
    """Raised when a hook of a manager did not return in time; what runs in a thread still runs."""


async def call_hook(
    topic: str,
    name: str,
    hook: Callable[..., Any],
    *args: Any,
    pool: WorkerPool,
    timeout: float,
    defects: UnexpectedErrors,
) -> Any:
    """Call a hook and return what it returns. On the loop.

    A `def` runs in the pool, an `async def` on the loop. Whatever it raises, SystemExit and KeyboardInterrupt included,
    becomes `HookFailed`; `defects` logs its traceback, unless it is an expected error. When it outlives `timeout`
    seconds a coroutine is cancelled, and a thread is left behind.

    Raises:
        HookFailed: The hook raised.
        HookTimeout: It did not return.
        asyncio.CancelledError: The caller was cancelled meanwhile.
    """
    limit, where = asyncio.timeout(timeout), f"{name} of service {topic}"
    try:
        async with limit:
            if inspect.iscoroutinefunction(hook):
                result = await _call_contained(hook, *args)
            else:
                result = await pool.run(lambda: hook(*args), label=f"{topic}.{name}")
            defects.clear(where)
            return result
    except asyncio.CancelledError:
        raise
    except Exception as error:
        # A hook may raise a TimeoutError of its own, of a socket for example: then it has returned.
        if is_a(error, TimeoutError) and limit.expired():
            raise HookTimeout(
                f"{name} of service {topic} did not return within {format_seconds(timeout)}",
                hint="`ostler dump` shows where it hangs; if it needs longer, raise `start_timeout`",
                service=topic,
                hook=name,
            ) from error
        defects.log_error(where, error)
        raise HookFailed(f"{where} failed: {error_line(error)}", service=topic, hook=name) from error


async def _call_contained(hook: Callable[..., Any], *args: Any) -> Any:
    try:
        result = await hook(*args)
    except (SystemExit, KeyboardInterrupt) as error:  # would stop the loop
        fork.exit_if_child(error)
        raise RuntimeError(f"{type_name(error)} was raised: {safe_str(error)}") from error
    except asyncio.CancelledError as error:
        fork.exit_if_child(error)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # This task was not cancelled: the hook awaited something that was. Passed on unchanged, it would look as if
        # the whole start had been cancelled, which is not a failure.
        raise RuntimeError("it waited for something that was cancelled") from error
    fork.exit_if_child()
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
        raise TypeError(f"{safe_repr(answer, 80)} is not a list")
    lines = [_problem_line(line) for line in answer[:_MAX_PROBLEM_LINES]]
    if len(answer) > _MAX_PROBLEM_LINES:
        lines.append(f"... ({len(answer) - _MAX_PROBLEM_LINES} more)")
    return lines


def _problem_line(line: object) -> str:
    text = SECRETS.redact_and_cut(safe_str(line, _NO_LIMIT), WHY_LIMIT)
    return redact(text)
