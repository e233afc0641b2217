"""Commands that show something: run again and again with `--watch`, and in a pager if they do not fit on a terminal."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ParamSpec, TextIO, TypeVar, cast

from ostler.cli import invocation, output
from ostler.cli.formatting import display_width, human_time
from ostler.cli.standard_streams import EscapingStream, unwrap
from ostler.cli.table import shorten
from ostler.config.units import format_seconds
from ostler.errors import OstlerError, error_line

P = ParamSpec("P")
T = TypeVar("T")
VIEW_ATTRIBUTE = "is_ostler_view"
"""Set on the function of each command that `--watch` can run again."""
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_DEFAULT_ROWS = 24


def view(command: Callable[P, T]) -> Callable[P, T]:
    """Mark the function of a command that shows something and changes nothing.

    `--watch` runs it again and again until Ctrl-C, and on a terminal more lines than it has are shown in a pager.

        @app.command("list")
        @kit.view
        def list_lamps() -> None: ...

    Args:
        command: The function; its parameters are those of the command.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_view(lambda: command(*args, **kwargs))

    setattr(run, VIEW_ATTRIBUTE, True)
    return run


def run_view(show: Callable[[], T]) -> T:
    """Run a function that shows something: again and again with `--watch`, in a pager if it does not fit.

    Args:
        show: The function.

    Returns:
        What the function returned last.
    """
    chosen = invocation.current_invocation().output
    if chosen.watch:
        return _watch(show, chosen.watch)
    if not output.on_terminal():
        return show()
    with _captured() as captured:
        try:
            return _show_with_hint(show)
        finally:
            captured.restore()
            _page(captured.getvalue())


class _Captured(io.StringIO):
    """Collects what is written for a terminal, and passes for that terminal."""

    def __init__(self, terminal: TextIO, before: TextIO) -> None:
        super().__init__()
        self._terminal, self._before = terminal, before

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a StringIO has none
        """The encoding of the terminal."""
        return self._terminal.encoding

    def isatty(self) -> bool:
        """Return whether the underlying stream is a terminal."""
        return self._terminal.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the terminal, of which its size is asked."""
        return self._terminal.fileno()

    def restore(self) -> None:
        """Make the stream from before stdout again."""
        sys.stdout = self._before


@contextmanager
def _captured() -> Iterator[_Captured]:
    before = sys.stdout
    captured = _Captured(unwrap(before), before)
    escaping = EscapingStream(captured, json=invocation.current_invocation().json)
    sys.stdout = cast("TextIO", escaping)
    try:
        yield captured
    finally:
        captured.restore()


def _show_with_hint(show: Callable[[], T]) -> T:
    """Show it, and below it which columns did not fit."""
    hidden: dict[str, None] = {}
    count = 0

    def on_shortened(titles: Sequence[str]) -> None:
        nonlocal count
        count += 1
        hidden.update(dict.fromkeys(titles))

    session = invocation.current_invocation()
    with invocation.use_invocation(replace(session, output=session.output._replace(on_shortened=on_shortened))):
        shown = show()
    if count:
        also = f" (not shown: {', '.join(hidden)})" if hidden else ""
        output.hint(f"Shortened to the width of the terminal{also}; --wide shows all.")
    return shown


def _watch(show: Callable[[], T], interval: float) -> T:
    """Run a function until Ctrl-C; an error of the daemon after the first output is shown, and it is tried again."""
    from ostler.cli.follow import until_interrupted  # only for `--watch`

    session = invocation.current_invocation()
    redraw = output.on_terminal() and not output.json_wanted()
    shown: list[T] = []
    with until_interrupted():
        while True:
            try:
                shown = [_redraw(show, interval) if redraw else _append(show)]
            except OstlerError as error:
                if not shown:
                    raise
                output.warn(f"ostler: {error_line(error)}")
            session.sleep(interval)
    return shown[-1]  # type: ignore[unreachable]  # the block ends with Ctrl-C, which it takes


def _append(show: Callable[[], T]) -> T:
    """Show it below what was shown before."""
    if invocation.current_invocation().output.format == "yaml":
        print("---")  # noqa: T201 - the command's output
    shown = show()
    if not output.json_wanted():
        output.say()
    sys.stdout.flush()
    return shown


def _redraw(show: Callable[[], T], interval: float) -> T:
    """Show it in place of what the terminal shows; lines that do not fit on it are left out."""
    with _captured() as captured:
        shown = _show_with_hint(show)
    width, rows = output.terminal_width(), _terminal_rows()
    lines = captured.getvalue().rstrip("\n").split("\n")
    head = f"Every {format_seconds(interval)}; {human_time(invocation.current_invocation().now())}; Ctrl-C ends"
    room = max(rows - 3, 1)
    more = [f"… {len(lines) - room + 1} more lines"] if len(lines) > room else []
    text = "\n".join([shorten(head, width), "", *lines[: room - len(more)], *more])
    terminal = unwrap(sys.stdout)
    terminal.write(f"{_CLEAR}{text}\n")
    terminal.flush()
    return shown


def _page(text: str) -> None:
    """Write a text to the terminal, through a pager if it has more lines than the terminal."""
    width, rows = output.terminal_width(), _terminal_rows()
    lines = sum(-(-max(display_width(_STYLE.sub("", line)), 1) // width) for line in text.rstrip("\n").split("\n"))
    session = invocation.current_invocation()
    words = _pager_words() if session.output.pager and lines >= rows else []
    if not (words and _run_pager(words, text)):
        unwrap(sys.stdout).write(text)


def _pager_words() -> list[str]:
    """Return the command of the pager: `OSTLER_PAGER`, `PAGER`, or less; nothing for none."""
    environ = invocation.current_invocation().environ
    chosen = next((environ[name] for name in ("OSTLER_PAGER", "PAGER") if name in environ), "less")
    words = chosen.split()
    return [] if words == ["cat"] else words


def _run_pager(words: Sequence[str], text: str) -> bool:
    """Show a text in the pager until it is left; return whether the pager could be started."""
    import signal  # 15 ms together: only for a text that is longer than the terminal
    import subprocess  # as above

    session = invocation.current_invocation()
    # As git and systemctl: leave if it fits, keep colours, keep the text on the screen; cut long lines.
    environ = {"LESS": "FRX" if session.output.format != "wide" else "FRSX", "LESSCHARSET": "utf-8", **session.environ}
    if os.geteuid() == 0:
        environ["LESSSECURE"] = "1"  # no shell out of the pager of a command that sudo allowed
    try:
        pager = subprocess.Popen(words, stdin=subprocess.PIPE, env=environ)
    except OSError:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pager
    try:
        pager.communicate(text.encode(errors="backslashreplace"))
    finally:
        signal.signal(signal.SIGINT, before)
    return pager.returncode != 127


def _terminal_rows() -> int:
    given = os.environ.get("LINES", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(unwrap(sys.stdout).fileno()).lines or _DEFAULT_ROWS
    except (OSError, ValueError, AttributeError):
        return _DEFAULT_ROWS
