"""The standard streams of the command, which escape control characters."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from ostler.printable import printable_json, printable_lines


class EscapingStream:
    """Replaces stdout or stderr while a command runs, and escapes what is written.

    The functions of the kit escape each name and reason in their lines. This is for what a command of a plugin or a
    library prints by itself: of control characters only line feeds and tabs pass. It does not report to be a terminal,
    so that libraries write no colours; what draws on the terminal (`output.console`) uses the underlying stream and
    escapes by itself.

    Args:
        stream: The underlying stream.
        json: Whether to use escapes of JSON, so that a document stays valid.
    """

    def __init__(self, stream: TextIO, *, json: bool) -> None:
        self.wrapped = stream
        self._json = json
        name = str(getattr(stream, "encoding", None) or "utf-8")
        self._ascii_only = not name.lower().replace("-", "").startswith("utf")

    encoding = "utf-8"
    """It accepts any text; with another encoding libraries would write bytes to the underlying buffer, unescaped."""

    def write(self, text: str) -> int:
        """Write a text, escaped; return the length of the original text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        safe = printable_json(text, ascii_only=self._ascii_only) if self._json else text
        self.wrapped.write(printable_lines(safe))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Return False: see the class."""
        return False

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the underlying stream."""
        return getattr(self.wrapped, name)


def unwrap(stream: TextIO) -> TextIO:
    """Return the stream under a `EscapingStream`, for callers that escape by themselves; any other stream as it is."""
    return stream.wrapped if isinstance(stream, EscapingStream) else stream


@contextmanager
def escape_standard_streams(*, json: bool) -> Iterator[None]:
    """Replace stdout and stderr by a `EscapingStream` each inside the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", EscapingStream(unwrap(stream), json=json)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def prepare_standard_streams() -> None:
    """Prepare the standard streams so that any text can be written to them, however the command was started.

    A closed stream becomes /dev/null: otherwise the next file or socket would get its number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays open
    # In a minimal environment stdout may support ASCII only; a name with an umlaut must not end the command.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
