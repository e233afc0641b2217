"""Ends commands that follow something: on Ctrl-C, or when the reader of stdout is gone."""

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
def until_interrupted() -> Iterator[None]:
    """End the block without an error on Ctrl-C, and as soon as nobody reads stdout any more.

    A writer notices a closed pipe only when it writes; `ostler events | head -1` would run until the next event, which
    may never come. So a thread watches the pipe, and interrupts the main thread. Call it on the main thread.

    Raises:
        BrokenPipeError: The reader is gone; the command exits silently on it.
    """
    try:
        with _watch_reader():
            yield
    except KeyboardInterrupt:
        pass  # the regular end of following


@contextmanager
def _watch_reader() -> Iterator[None]:
    descriptor = _pipe_descriptor(sys.stdout)
    if descriptor is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPIPE, _raise_broken_pipe)
    stop_read, stop_write = os.pipe()
    main = threading.get_ident()
    watch = threading.Thread(
        target=_wait_for_hangup, args=(descriptor, stop_read, main), name="stdout watch", daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        os.close(stop_write)
        watch.join()
        os.close(stop_read)
        signal.signal(signal.SIGPIPE, before)


def _wait_for_hangup(descriptor: int, stop: int, main: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # reports errors only: the read end was closed
    poll.register(stop, select.POLLIN)
    ready = {number for number, _ in poll.poll()}
    if stop not in ready:
        # A signal and not a flag, because the main thread blocks in a system call.
        signal.pthread_kill(main, signal.SIGPIPE)


def _raise_broken_pipe(_number: int, _frame: FrameType | None) -> NoReturn:
    raise BrokenPipeError("the reader of stdout is gone")


def _pipe_descriptor(stream: object) -> int | None:
    try:
        descriptor: int = stream.fileno()  # type: ignore[attr-defined]  # a stream without one raises, as caught here
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None
