"""How a call ended."""

from __future__ import annotations

from typing import Any


class Outcome:
    """How one call of a blocking client ended; set on the thread that reads, asked by the one that waits."""

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: Exception | None = None

    def settle(self, value: Any, error: Exception | None) -> None:
        """Take note of the end."""
        self.done, self._value, self._error = True, value, error

    def result(self) -> Any:
        """Return the result.

        Raises:
            Exception: What the call ended with instead.
        """
        if self._error is not None:
            raise self._error
        return self._value
