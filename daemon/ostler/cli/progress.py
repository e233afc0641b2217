"""Progress of a long call: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ostler.cli.output import console, json_wanted, on_terminal
from ostler.cli.words import printable

if TYPE_CHECKING:
    from ostler.messaging.context import Progress

_TEXT_LIMIT = 200
"""The most characters of what a report says beside the bar."""
OnProgress = Callable[["Progress"], None]


@contextmanager
def progress(label: str) -> Iterator[OnProgress]:
    """Show how far a call is, on stderr, while the block runs.

    The bar appears with the first report, so that a quick call shows none and imports nothing.

        with kit.client() as client, kit.progress("copying") as on_progress:
            client.on(on_progress=on_progress).call("volume", "create", name="a", size=size)

    Args:
        label: What is being done; a report's own text takes its place.

    Yields:
        What to give as `on_progress` to `Client.call`.
    """
    if json_wanted() or not on_terminal(sys.stderr):
        yield lambda _: None
        return
    bar = _Bar(label)
    try:
        yield bar.report
    finally:
        bar.close()


def _percent(how_far: Progress) -> float | None:
    """Return how far it is from 0 to 100, None when that is not known or makes no sense."""
    share = how_far.done / how_far.total if how_far.total else -1.0
    return share * 100 if 0 <= share <= 1 else None


class _Bar:
    """A rich progress bar that is made when it is first needed."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._task: Any = None

    def report(self, how_far: Progress) -> None:
        """Show a report."""
        if self._bar is None:
            self._open()
        self._bar.update(
            self._task,
            completed=_percent(how_far) or 0,
            total=None if _percent(how_far) is None else 100,
            description=printable(how_far.text or self._label, _TEXT_LIMIT),
        )

    def _open(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console(sys.stderr), transient=True)
        self._task = self._bar.add_task(printable(self._label, _TEXT_LIMIT), total=None)
        self._bar.start()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()
