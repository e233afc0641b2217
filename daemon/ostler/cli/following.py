"""An end for verbs that follow: Ctrl-C, or the reader of stdout going away."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def until_told() -> Iterator[None]:
    """Let the block end without an error on Ctrl-C, and as soon as nobody reads stdout any more.

    A writer learns of a closed pipe only when it writes; `ostler events | head -1` would stay until the next event,
    which may never come. So a thread watches the pipe, and interrupts the main thread where it waits. Main thread.

    Raises:
        BrokenPipeError: The reader went away; the command ends quietly on it.
    """
    try:
        with _reader_watched():
            yield
    except KeyboardInterrupt:
        pass  # how following is meant to end


@contextmanager
def _reader_watched() -> Iterator[None]:
    descriptor = _pipe_of(sys.stdout)
    if descriptor is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPIPE, _reader_gone)
    stop_read, stop_write = os.pipe()
    main = threading.get_ident()
    watch = threading.Thread(target=_watch, args=(descriptor, stop_read, main), name="stdout watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        os.close(stop_write)
        watch.join()
        os.close(stop_read)
        signal.signal(signal.SIGPIPE, before)


def _watch(descriptor: int, stop: int, main: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors alone: the far end was closed
    poll.register(stop, select.POLLIN)
    ready = {number for number, _ in poll.poll()}
    if stop not in ready:
        # A signal and not a flag, because the main thread waits in a system call.
        signal.pthread_kill(main, signal.SIGPIPE)


def _reader_gone(_number: int, _frame: FrameType | None) -> NoReturn:
    raise BrokenPipeError("nobody reads any more")


def _pipe_of(stream: object) -> int | None:
    try:
        descriptor: int = stream.fileno()  # type: ignore[attr-defined]  # a stream without one raises, as caught here
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None
