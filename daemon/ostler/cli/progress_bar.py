"""Progress of a long call: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ostler.cli.formatting import printable
from ostler.cli.output import is_quiet, on_terminal, rich_console

if TYPE_CHECKING:
    from ostler.messaging.wire.request_context import Progress

_MAX_TEXT_LENGTH = 200
"""The maximum number of characters of a report's text next to the bar."""
OnProgress = Callable[["Progress"], None]


@contextmanager
def progress(label: str) -> Iterator[OnProgress]:
    """Show the progress of a call on stderr while the block runs.

    The bar appears with the first report: a quick call shows none and imports nothing.

        with kit.client() as client, kit.progress("copying") as on_progress:
            client.on(on_progress=on_progress).call("volume", "create", name="a", size=size)

    Args:
        label: What is being done; the text of a report replaces it.

    Yields:
        The function to pass as `on_progress` to `Client.on`.
    """
    if is_quiet() or not on_terminal(sys.stderr):
        yield lambda _: None
        return
    bar = _ProgressBar(label)
    try:
        yield bar.update
    finally:
        bar.close()


def _percent(progress: Progress) -> float | None:
    """Return the progress from 0 to 100, None if it is unknown or invalid."""
    share = progress.done / progress.total if progress.total else -1.0
    return share * 100 if 0 <= share <= 1 else None


class _ProgressBar:
    """A rich progress bar, created when it is first needed."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._task: Any = None

    def update(self, progress: Progress) -> None:
        """Show a report."""
        if self._bar is None:
            self._create()
        self._bar.update(
            self._task,
            completed=_percent(progress) or 0,
            total=None if _percent(progress) is None else 100,
            description=printable(progress.text or self._label, _MAX_TEXT_LENGTH),
        )

    def _create(self) -> None:
        # 24 ms: only for progress on a terminal.
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=rich_console(sys.stderr), transient=True)
        self._task = self._bar.add_task(printable(self._label, _MAX_TEXT_LENGTH), total=None)
        self._bar.start()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.stop()
