"""What was set up, step by step, and how each step is undone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from ostler.errors import error_line

Undo = Callable[[float], Awaitable[Sequence[str] | None]]
"""Undoes one step; gets the seconds it may take, and returns what hung, a line each."""


class UndoStack:
    """Records how to undo each step of a start, so that a stop is correct at every point of it. On the loop.

    Args:
        log: Where a failure to undo a step is logged.
        owner: Whose steps these are, for that message; empty when the log says it.
    """

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger], owner: str = "") -> None:
        self._log = log
        self._owner = owner
        self._steps: list[tuple[str, Undo]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def push(self, step: str, undo: Undo) -> None:
        """Record a step that was set up, before anything can interrupt what follows it.

        Args:
            step: What is undone, a noun: `sockets`.
            undo: Undoes it.
        """
        self._steps.append((step, undo))

    def push_call(self, step: str, call: Callable[[], object]) -> None:
        """Record a step that a function undoes at once; see `push`."""

        async def undo(_seconds: float) -> None:
            call()

        self.push(step, undo)

    async def run(
        self, timeout: float, *, min_step_time: float = 0.0, on_step: Callable[[str], object] = lambda _step: None
    ) -> list[str]:
        """Undo all steps, the last one first, also those that are recorded meanwhile.

        A step that fails is logged, and the rest is undone nevertheless. A cancellation ends the run; the remaining
        steps stay recorded.

        Args:
            timeout: Seconds for all steps. Each is told what is left, and has to observe that by itself.
            min_step_time: The least seconds that a step is told, however little time is left.
            on_step: Called with the name of each step before it is undone.

        Returns:
            What hung, a line each.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        hung: list[str] = []
        while self._steps:
            step, undo = self._steps.pop()
            on_step(step)
            try:
                hung += await undo(max(min_step_time, until - loop.time())) or ()
            except Exception as error:  # noqa: BLE001 - the rest must be undone whatever this step does
                what = f"{step} of {self._owner}" if self._owner else step
                self._log.error("stopping %s failed: %s", what, error_line(error))
        return hung
