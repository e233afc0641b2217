"""Asks on a terminal before something is done that cannot be undone; imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from ostler.cli.formatting import printable
from ostler.cli.standard_streams import unwrap
from ostler.errors import Cancelled

_MAX_QUESTION_LENGTH = 400
"""The maximum number of characters of a question: it may have thousands of names."""
_MAX_NAMES = 5
"""The maximum number of names in a question."""


def confirm(question: str, *, yes: bool = False) -> None:
    """Ask on a terminal before something is destroyed; returns if the answer is yes, or nobody can be asked.

    Without a terminal on stdin (a script, a timer, a pipe) nothing is asked and the command goes on. Declare the option
    of the command as `yes: kit.YesOption = False`.

    Args:
        question: The action, without a question mark: `delete volume a with its content`.
        yes: The value of the command's `--yes`: nothing is asked.

    Raises:
        Cancelled: The answer was not `y` or `yes`; the exit code is 1.
    """
    if not yes and ask(question) is False:
        raise Cancelled(f"not confirmed, nothing was done: {question}", hint="answer y, or use `--yes`")


def ask(question: str) -> bool | None:
    """Ask a question on the terminal; None if there is no terminal on stdin, or none to show it on.

    Anything but `y` and `yes`, the end of the input and what is not text are a no.

    Args:
        question: Without a question mark; it is shown `printable` and capitalised.
    """
    shown_on = _terminal()
    if shown_on is None or not _is_terminal(sys.stdin):
        return None
    text = question[:1].upper() + question[1:]
    print(f"{printable(text, _MAX_QUESTION_LENGTH)}? [y/N] ", end="", file=shown_on, flush=True)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except UnicodeDecodeError:
        return False


def count_of(names: Sequence[str], noun: str) -> str:
    """Return names for a question, with their number if there are several: `volume a`, `3 volumes (a, b, c)`.

    Args:
        names: One or more; only the first ones are shown of many.
        noun: What they name, in the singular.
    """
    if len(names) == 1:
        return f"{noun} {names[0]}"
    more = ", …" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} {noun}s ({', '.join(names[:_MAX_NAMES])}{more})"


def _terminal() -> TextIO | None:
    """Return the stream on which a person sees a question: stderr, or stdout if stderr goes elsewhere."""
    return next((unwrap(stream) for stream in (sys.stderr, sys.stdout) if _is_terminal(stream)), None)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and unwrap(stream).isatty()
    except ValueError:  # closed
        return False
