"""Standard error and streams in memory, as targets of the log."""

from __future__ import annotations

import os
import select
import weakref
from typing import TextIO

from ostler.log.log_writer import LogLine, LogTarget
from ostler.printable import printable

_POLL_MILLISECONDS = 1000


class DescriptorTarget:
    """A file descriptor of the log's own: whoever closes or replaces the stream it was made from changes nothing.

    Args:
        descriptor: What to write to; a duplicate is made.
        closed: Whether it was closed when the process started, and is /dev/null now.
    """

    is_direct = False

    def __init__(self, descriptor: int, *, closed: bool = False) -> None:
        self.closed = closed
        self._descriptor = os.dup(descriptor)
        self._is_line_torn = False
        weakref.finalize(self, os.close, self._descriptor).atexit = False

    def send(self, line: LogLine) -> None:
        """Write one line whole; see `LogTarget`."""
        self.write(line.data)

    def write(self, data: bytes) -> None:
        """Write bytes, however long that takes.

        Raises:
            OSError: No space is left, the reader has gone, or the device does not work.
        """
        rest = memoryview(b"\n" + data if self._is_line_torn else data)
        self._is_line_torn = False
        whole = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody has made it non-blocking: it is shared with other processes
                waiter = select.poll()
                waiter.register(self._descriptor, select.POLLOUT)
                waiter.poll(_POLL_MILLISECONDS)
            except OSError:
                self._is_line_torn = len(rest) < whole
                raise

    def problem(self) -> str:
        """See `LogTarget`."""
        return "the log is discarded: standard error was closed when the daemon started" if self.closed else ""

    def __str__(self) -> str:
        if self.closed:
            return "nowhere"
        try:
            name = os.readlink(f"/proc/self/fd/{self._descriptor}")  # noqa: PTH115 - `pipe:[7]` is no path
            return f"standard error ({printable(name, 200)})"
        except OSError:
            return "standard error"


class StreamTarget:
    """A stream without a descriptor: it is in memory, and written by who logs.

    Args:
        stream: The stream.
    """

    is_direct = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, line: LogLine) -> None:
        """Write one line; see `LogTarget`."""
        self.write(line.data)

    def write(self, data: bytes) -> None:
        """Write bytes."""
        self._stream.write(data.decode("utf-8", "backslashreplace"))
        self._stream.flush()

    def problem(self) -> str:
        """See `LogTarget`."""
        return ""

    def __str__(self) -> str:
        return "a stream in memory"


def make_target(stream: TextIO) -> DescriptorTarget | StreamTarget:
    """Return the target for a stream: its descriptor when it has one."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return StreamTarget(stream)
    # Python names its own `<stderr>`: a number was opened in place of a descriptor that was closed.
    return DescriptorTarget(descriptor, closed=getattr(stream, "name", "") == 2)


__all__ = ["DescriptorTarget", "LogTarget", "StreamTarget", "make_target"]
