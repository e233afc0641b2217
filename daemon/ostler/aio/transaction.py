"""Steps that are all carried out, or all undone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ostler.errors import error_line

Work = Callable[[], Awaitable[None]]


class Transaction:
    """Carries out steps in order, and takes those that were begun back when one fails. On the loop.

    Args:
        log: Where a step that cannot be undone is logged.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._undo: list[tuple[str, Work]] = []

    async def run(self, step: str, work: Work, undo: Work) -> None:
        """Carry out one step.

        Args:
            step: What is done, for the log: `add driver volume/second`.
            work: Does it; whatever it raises is passed on.
            undo: Establishes what was there before, whether the work was done, has failed, or was cut off.
        """
        self._undo.append((step, undo))
        await work()

    async def roll_back(self) -> dict[str, str]:
        """Take all steps back, the last one first; return those that could not be, each with why."""
        failed: dict[str, str] = {}
        while self._undo:
            step, undo = self._undo.pop()
            try:
                await undo()
            except Exception as error:  # noqa: BLE001 - the rest must be undone whatever this one does
                failed[step] = error_line(error)
                self._log.error("%s could not be undone: %s", step, error_line(error), exc_info=error)
        return failed
