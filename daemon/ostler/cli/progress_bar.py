"""Progress of whatever takes longer: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ostler.cli.formatting import printable
from ostler.cli.output import is_quiet, on_terminal, rich_console
from ostler.config.units import format_seconds, format_size

if TYPE_CHECKING:
    from ostler.messaging.wire.request_context import Progress

BYTES = "bytes"
"""The unit of progress that is measured in bytes."""
_MAX_TEXT_LENGTH = 200
"""The maximum number of characters of a report's text next to the bar."""
_LEAST_BYTES = 2**20
"""From this total on a number without a unit is taken for bytes: nobody counts a million steps."""
_SILENT_SECONDS = 1.0
"""Seconds after which the bar appears also without a report."""
_LEAST_RATE = 1e-9
_BEYOND = 2.0**63
"""From here on a number is not one of progress."""
OnProgress = Callable[["Progress"], None]


@contextmanager
def progress(label: str, *, unit: str = "", appear_after: float = _SILENT_SECONDS) -> Iterator[OnProgress]:
    """Show the progress of a call on stderr while the block runs: how much of how much, the rate and the time left.

    The bar appears with the first report, or after a second: a quick call shows none and imports nothing.

        with kit.client() as client, kit.progress("copying") as on_progress:
            client.on(on_progress=on_progress).call("volume", "create", name="a", size=size)

    Args:
        label: What is being done; the text of a report replaces it.
        unit: `bytes`, or what is counted (`files`); by default totals of a MiB and more are bytes, and others have no
            unit.
        appear_after: Seconds after which the bar appears also without a report.

    Yields:
        The function to pass as `on_progress` to `Client.on`. Any thread.
    """
    if is_quiet() or not on_terminal(sys.stderr):
        yield lambda _: None
        return
    bar = _ProgressBar(label, unit, appear_after)
    try:
        yield bar.update
    finally:
        bar.close()


def format_amount(done: float, total: float, unit: str = "") -> str:
    """Return how far something is: `1.2GiB of 10GiB`, `3 of 8 files`, `12 files`; empty when nothing is known.

    Args:
        done: How much is done.
        total: How much there is; 0 if that is not known.
        unit: As for `progress`.
    """
    if not (done > 0 or total > 0) or not max(done, total) < _BEYOND:
        return ""
    if unit == BYTES or (not unit and max(done, total) >= _LEAST_BYTES):
        return f"{format_size(done)} of {format_size(total)}" if total > 0 else format_size(done)
    counted = f"{_count(done)} of {_count(total)}" if total > 0 else _count(done)
    return f"{counted} {unit}".rstrip()


def _count(number: float) -> str:
    return f"{number:g}" if number < 10**6 else f"{number:,.0f}"


def format_rate(rate: float, done: float, total: float, unit: str = "") -> str:
    """Return how fast it goes on and how long it takes yet: `85MiB/s, 1min 5s left`; empty if that is not known.

    Args:
        rate: How much is done in a second.
        done: How much is done.
        total: How much there is; 0 if that is not known.
        unit: As for `progress`.
    """
    if not (_LEAST_RATE < rate < _BEYOND and max(done, total) < _BEYOND):
        return ""
    is_bytes = unit == BYTES or (not unit and max(done, total) >= _LEAST_BYTES)
    parts = [f"{format_size(round(rate))}/s"] if is_bytes else []
    if total > done:
        parts.append(f"{format_seconds(max((total - done) / rate, 1.0), units=2)} left")
    return ", ".join(parts)


class _ProgressBar:
    """A rich progress bar, created when it is first needed. Any thread."""

    def __init__(self, label: str, unit: str, appear_after: float) -> None:
        self._label = label
        self._unit = unit
        self._bar: Any = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._timer = threading.Timer(appear_after, self._appear)
        self._timer.daemon = True
        self._timer.start()

    def _appear(self) -> None:
        with self._lock:
            self._create_if_needed()

    def update(self, report: Progress) -> None:
        """Show a report."""
        with self._lock:
            if self._is_closed:
                return
            self._create_if_needed()
            done = report.done if 0 <= report.done < _BEYOND else 0  # a peer can say anything
            is_known = done <= report.total < _BEYOND and report.total > 0
            self._bar.update(
                self._task,
                completed=done,
                total=report.total if is_known else None,
                description=printable(report.text or self._label, _MAX_TEXT_LENGTH),
            )

    def _create_if_needed(self) -> None:
        if self._bar is not None or self._is_closed:
            return
        # 24 ms: only for progress on a terminal.
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.table import Column  # likewise

        rest_of_line = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            TextColumn("{task.description}", markup=False, table_column=rest_of_line),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            _figures_column(self._unit),
        )
        self._bar = Progress(*columns, console=rich_console(sys.stderr), transient=True, expand=True)
        self._task = self._bar.add_task(printable(self._label, _MAX_TEXT_LENGTH), total=None)
        self._bar.start()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._timer.cancel()
        with self._lock:
            self._is_closed = True
            if self._bar is not None:
                self._bar.stop()


def _figures_column(unit: str) -> Any:
    """Return the column with the amount, the rate and the time left; the time that has passed if nothing is known."""
    # 24 ms, as above.
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Figures(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Any) -> Text:
            total = task.total or 0.0
            parts = [format_amount(task.completed, total, unit)]
            parts.append(format_rate(task.speed or 0.0, task.completed, total, unit))
            text = ", ".join(filter(None, parts)) or format_seconds(round(task.elapsed or 0), units=2)
            return Text(text, no_wrap=True)

    return Figures()
