"""Unexpected errors of plugins: their traceback is logged once, with the place that raised it."""

from __future__ import annotations

import logging
import threading

from ostler.bounds import mask_numbers
from ostler.errors import error_line, is_expected

_MAX_PLACES = 1000
_MAX_KINDS = 8
"""Errors of one place that are logged until it works again."""
_OTHERS = "others"


class UnexpectedErrors:
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
        self._logged: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def log_error(self, place: str, error: BaseException) -> None:
        """Log an error with its traceback, unless it is expected or was logged for this place last time.

        Args:
            place: The method and whose it is, as the subject of a sentence: `initialise of driver a of b`.
            error: What it raised.
        """
        if is_expected(error):
            return
        text = error_line(error)
        kind = mask_numbers(text)
        with self._lock:
            if len(self._logged) >= _MAX_PLACES:
                self._logged.clear()
            told = self._logged.setdefault(place, {})
            news = kind not in told and len(told) < _MAX_KINDS
            kind = kind if kind in told or news else _OTHERS
            told[kind] = told.get(kind, 0) + 1
        if news:
            self._log.error("%s raised %s", place, text, exc_info=error, extra=self._fields)

    def clear(self, place: str) -> None:
        """Record that a place works: its next error is logged again, and how often the last one occurred is logged."""
        if place not in self._logged:
            return
        with self._lock:
            told = self._logged.pop(place, {})
        times = sum(told.values())
        if times > 1:
            text = "; ".join(told)
            self._log.info("%s works again; it had raised %d times: %s", place, times, text, extra=self._fields)
