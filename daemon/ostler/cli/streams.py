"""The standard streams of the command: whatever is written to them leaves a terminal alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from ostler.printable import printable_json, printable_lines


class SafeStream:
    """Stands for stdout or stderr while a verb runs; what it is given is escaped before it goes on.

    The functions of the kit escape each name and reason in their lines. This is for what is printed around them, by a
    verb of a plugin or a library: no control character passes, only line feeds and tabs do. Whoever asks is told that
    it is no terminal, so that nobody writes colours here; what draws on the terminal (`output.console`) takes the
    stream behind it and escapes by itself.

    Args:
        stream: The stream behind it.
        json: Whether escapes are those of JSON, so that a document stays valid.
    """

    def __init__(self, stream: TextIO, *, json: bool) -> None:
        self.behind = stream
        self._json = json
        name = str(getattr(stream, "encoding", None) or "utf-8")
        self._ascii_only = not name.lower().replace("-", "").startswith("utf")

    encoding = "utf-8"
    """It takes any text; libraries that see another encoding would write to the bytes below, past the escapes."""

    def write(self, text: str) -> int:
        """Write a text, escaped; return the length of what was given."""
        if not isinstance(text, str):
            raise TypeError(f"a text is written to this stream, not {type(text).__name__}")
        safe = printable_json(text, ascii_only=self._ascii_only) if self._json else text
        self.behind.write(printable_lines(safe))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Return False: see the class."""
        return False

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the stream behind it has."""
        return getattr(self.behind, name)


def behind(stream: TextIO) -> TextIO:
    """Return the stream that stands behind one, for who escapes by itself what it writes; any other is returned."""
    return stream.behind if isinstance(stream, SafeStream) else stream


@contextmanager
def safe_streams(*, json: bool) -> Iterator[None]:
    """Put a `SafeStream` in front of stdout and of stderr inside the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", SafeStream(behind(stream), json=json)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def prepare() -> None:
    """Make the standard streams such that any text can be written to them, whatever the command was started with.

    A stream that was closed is /dev/null from now on: its number would else be that of the next file or socket.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays
    # In a bare environment stdout may know ASCII only; a name with an umlaut must not end the command.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
