"""Unexpected errors of plugins: their traceback stands in the log once, with whose it is."""

from __future__ import annotations

import logging
import threading

from ostler.bounds import without_numbers
from ostler.errors import describe, is_expected

_PLACES_LIMIT = 1000
_KINDS_LIMIT = 8
"""Errors of one place that are logged until it works again."""
_OTHERS = "others"


class Defects:
    """Logs the traceback of each unexpected error of a plugin, and counts what repeats. From any thread.

    The same error of the same place is logged once until the place works again, also when its numbers differ; so are
    the first few of a place that raises something else each time. Errors of ours are expected and have no traceback.

    Args:
        log: Where lines go.
        fields: Whose code it is, for programs: `topic`, `driver`.
    """

    def __init__(self, log: logging.Logger, **fields: str) -> None:
        self._log = log
        self._fields = fields
        self._told: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def tell(self, where: str, error: BaseException) -> None:
        """Log an error with its traceback, unless it is expected or was logged for this place last time.

        Args:
            where: The method and whose it is, as the subject of a sentence: `initialise of driver a of b`.
            error: What it raised.
        """
        if is_expected(error):
            return
        text = describe(error)
        kind = without_numbers(text)
        with self._lock:
            if len(self._told) >= _PLACES_LIMIT:
                self._told.clear()
            told = self._told.setdefault(where, {})
            news = kind not in told and len(told) < _KINDS_LIMIT
            kind = kind if kind in told or news else _OTHERS
            told[kind] = told.get(kind, 0) + 1
        if news:
            self._log.error("%s raised %s", where, text, exc_info=error, extra=self._fields)

    def worked(self, where: str) -> None:
        """Take note that a place works: its next error is news, and how often the last one came is said."""
        if where not in self._told:
            return
        with self._lock:
            told = self._told.pop(where, {})
        times = sum(told.values())
        if times > 1:
            text = "; ".join(told)
            self._log.info("%s works again; it had raised %d times: %s", where, times, text, extra=self._fields)
