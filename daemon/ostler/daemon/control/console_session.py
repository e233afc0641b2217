"""One session of `ostler console`: runs Python statements on the loop, and gathers what they print.

A statement has the loop to itself until it ends or awaits. One that keeps it for too long is interrupted by a signal: a
thread that watches it cannot stop it otherwise, and nothing reaches the loop meanwhile, not even Ctrl-C of the client.
"""

from __future__ import annotations

import ast
import asyncio
import contextvars
import signal
import sys
import threading
import traceback
import types
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import Any, ClassVar, TextIO

from ostler import fork
from ostler.redaction import redact
from ostler.time_text import format_seconds

MAX_HOLD_TIME = 2.0
"""Seconds for which a statement may keep the loop: a client of the daemon counts it as dead after four."""
MAX_OUTPUT = 1024 * 1024
"""Characters that one input may print; the rest is dropped, and counted."""
_WATCH_INTERVAL = 0.1
_SIGNAL = signal.SIGURG
"""Nobody else uses it, and by default it does nothing."""
_FILE_NAME = "<console>"

_current: contextvars.ContextVar[ConsoleSession | None] = contextvars.ContextVar("ostler_console", default=None)


class ConsoleInterrupted(BaseException):
    """Raised in a statement that keeps the loop for too long. No `except Exception` of the statement catches it."""


class ConsoleSession:
    """The names, the output and the time limit of one session. On the loop's thread.

    Args:
        names: What statements find by name.
        max_hold_time: Seconds for which a statement may keep the loop.
        max_output: Characters that one input may print.
    """

    def __init__(
        self, names: dict[str, Any], max_hold_time: float = MAX_HOLD_TIME, max_output: int = MAX_OUTPUT
    ) -> None:
        self.names = {"__name__": "__console__", "__builtins__": __builtins__, **names}
        self.has_failed = False
        """Whether the last input raised."""
        self._max_output = max_output
        self._loop = asyncio.get_running_loop()
        self._guard = _HoldGuard(max_hold_time)
        self._output: deque[str] = deque()
        self._written = 0
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Stop watching the session."""
        self._guard.close()

    def write(self, text: str) -> None:
        """Add to the output. Any thread."""
        left = self._max_output - self._written
        self._written += len(text)
        if left > 0:
            self._output.append(text[:left])
            self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self, source: str) -> Any:
        """Run an input, and yield what it prints as it comes. Each expression of it is shown, unless it is None."""
        self._written, self.has_failed = 0, False
        self._output.clear()
        context = contextvars.copy_context()
        context.run(_current.set, self)
        with _captured_stdout():
            task = self._loop.create_task(self._run(source), name="ostler console", context=context)
            task.add_done_callback(lambda _: self._changed.set())
            try:
                while not task.done():
                    await self._changed.wait()
                    self._changed.clear()
                    if self._output:
                        yield self._take()
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait([task], timeout=1.0)
        if self._output:
            yield self._take()
        if self._written > self._max_output:
            yield f"\n… {self._written - self._max_output} more characters\n"

    def _take(self) -> str:
        text = "".join(self._output)
        self._output.clear()
        return redact(text)

    async def _run(self, source: str) -> None:
        try:
            for node in ast.parse(source, _FILE_NAME).body:
                await self._run_statement(node)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit of a statement is no reason to stop the daemon
            fork.exit_if_child(error)
            self.has_failed = True
            self.write(_format_error(error))

    async def _run_statement(self, node: ast.stmt) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        if isinstance(node, ast.Expr):
            expression = ast.Expression(node.value)
            value = await self._evaluate(compile(expression, _FILE_NAME, "eval", flags, dont_inherit=True))
            if value is not None:
                self.names["_"] = value
                with self._guard:
                    shown = repr(value)
                self.write(f"{shown}\n")
            return
        module = ast.Module([node], [])
        await self._evaluate(compile(module, _FILE_NAME, "exec", flags, dont_inherit=True))

    async def _evaluate(self, code: types.CodeType) -> Any:
        function = types.FunctionType(code, self.names)
        with self._guard:
            result = function()
        if code.co_flags & (0x80 | 0x100 | 0x200):  # it has an `await` of its own
            result = await _guarded_steps(result, self._guard)
        if fork.in_child:
            fork.exit_child()
        return result


class _HoldGuard:
    """Interrupts what keeps the loop for too long, while it is entered. On the loop's thread.

    Only the main thread gets signals: on another one, as in a test's host, nothing is interrupted. The handler is one
    for all sessions, which end in any order.

    Args:
        limit: Seconds.
    """

    _open: ClassVar[set[_HoldGuard]] = set()
    _previous_handler: ClassVar[Any] = None

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._held_since: float | None = None
        self._closed = threading.Event()
        self._thread_id = threading.get_ident()
        if threading.current_thread() is threading.main_thread():
            if not _HoldGuard._open:
                _HoldGuard._previous_handler = signal.signal(_SIGNAL, _HoldGuard._on_signal)
            _HoldGuard._open.add(self)
            threading.Thread(target=self._watch, name="ostler-console", daemon=True).start()

    def __enter__(self) -> None:
        self._held_since = monotonic()

    def __exit__(self, *_: object) -> None:
        self._held_since = None

    def close(self) -> None:
        self._held_since = None
        self._closed.set()
        if self in _HoldGuard._open:
            _HoldGuard._open.remove(self)
            if not _HoldGuard._open:
                signal.signal(_SIGNAL, _HoldGuard._previous_handler or signal.SIG_DFL)

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_INTERVAL):
            if self._is_overdue():
                signal.pthread_kill(self._thread_id, _SIGNAL)

    def _is_overdue(self) -> bool:
        since = self._held_since
        return since is not None and monotonic() - since > self._limit

    @staticmethod
    def _on_signal(*_: object) -> None:
        for guard in _HoldGuard._open:
            guard.interrupt_if_overdue()

    def interrupt_if_overdue(self) -> None:
        """Raise in what keeps the loop for too long; it may have ended since the signal was sent."""
        if self._is_overdue():
            self._held_since = monotonic()  # what catches it has as long again
            raise ConsoleInterrupted(
                f"the statement kept the event loop for {format_seconds(self._limit)}; use `await` in it"
            )


@types.coroutine
def _guarded_steps(work: Any, guard: _HoldGuard) -> Generator[Any, Any, Any]:
    """Drive a coroutine, each of its steps inside the guard."""
    step: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        try:
            with guard:
                awaited = step(value)
        except StopIteration as end:
            return end.value
        try:
            value = yield awaited
            step = work.send
        except BaseException as error:  # noqa: BLE001 - passed on to the coroutine, as `await` does
            value, step = error, work.throw


def _format_error(error: BaseException) -> str:
    """Return a traceback from the statement on, or one line for what is no fault of a function that it calls."""
    if isinstance(error, SyntaxError | ConsoleInterrupted):
        return "".join(traceback.format_exception_only(error))
    frames = traceback.extract_tb(error.__traceback__)
    first = next((number for number, frame in enumerate(frames) if frame.filename == _FILE_NAME), len(frames))
    lines = traceback.format_list(frames[first:])
    head = ["Traceback (most recent call last):\n"] if lines else []
    return "".join([*head, *lines, *traceback.format_exception_only(error)])


class _SessionOutput:
    """Stands in for `sys.stdout`: what a session prints goes to it, everything else where it went before."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.users = 0

    def write(self, text: str) -> int:
        session = _current.get()
        if session is None:
            return self.stream.write(text)
        session.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_outputs: dict[int, _SessionOutput] = {}
"""By the stream that each stands in for, and for good: `print` borrows `sys.stdout`, so that on another thread it would
go on with an object that is gone when a session ends meanwhile, and the process would crash."""


def _output_of(stream: TextIO | _SessionOutput) -> _SessionOutput:
    if isinstance(stream, _SessionOutput):
        return stream
    return _outputs.setdefault(id(stream), _SessionOutput(stream))


@contextmanager
def _captured_stdout() -> Generator[None]:
    """Have what sessions print go to them, inside the block; several may be open."""
    output = _output_of(sys.stdout)
    output.users += 1
    sys.stdout = output
    try:
        yield
    finally:
        output.users -= 1
        if not output.users and sys.stdout is output:
            sys.stdout = output.stream
