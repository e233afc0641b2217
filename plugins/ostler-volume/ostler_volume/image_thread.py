"""Accesses images in a separate thread, with a time limit.

Images may be on any kind of mount, such as a share whose server fails. A read that hangs there must fail the request,
and must not block the backend of the copy: so the backend's threads never access an image themselves. They wait for a
thread that does, up to a limit.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, TypeVar

from ostler import format_seconds, waiting_for
from ostler_volume.errors import ImageNotResponding

T = TypeVar("T")
_SHORT_WAIT = 0.02
"""Seconds after which a wait is no longer quick."""
_RECHECK_INTERVAL = 0.25
"""Interval in seconds at which a waiting request checks whether it was cancelled."""
_MAX_HUNG_THREADS = 8
"""Maximum number of threads that may hang in one place; further access to it is refused."""
MOUNT_TABLE = Path("/proc/self/mountinfo")


class ImageMount:
    """A file system with images: which threads hang there, and since when.

    Args:
        path: Its mount point.
        max_hung: How many threads may hang there.
    """

    def __init__(self, path: str, max_hung: int = _MAX_HUNG_THREADS) -> None:
        self.path = path
        self._max_hung = max_hung
        self._lock = threading.Lock()
        # By `id`, which is unique while they hang.
        self._hung: dict[int, float] = {}
        self._last_attempt = 0.0

    def mark_hung(self, source: ImageThread, since: float) -> None:
        """Record that a thread has exceeded its limit; `since` is a time of the monotonic clock."""
        with self._lock:
            self._hung[id(source)] = since
            self._last_attempt = time.monotonic()

    def clear_hung(self, source: ImageThread) -> None:
        """Record that a thread has returned."""
        with self._lock:
            self._hung.pop(id(source), None)

    def check(self, retry_after: float) -> None:
        """Refuse access to a place where a thread hangs, except for a periodic attempt.

        Raises:
            ImageNotResponding: A thread hangs there.
        """
        now = time.monotonic()
        with self._lock:
            if not self._hung or (len(self._hung) < self._max_hung and now - self._last_attempt > retry_after):
                self._last_attempt = now
                return
            since = min(self._hung.values())
        raise not_responding_error(f"access to {self.path}", now - since, self.path)


class ImageMounts:
    """The places of the images of a backend, by their mount points. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mounts: dict[str, ImageMount] = {}

    def mount_of_path(self, path: str) -> ImageMount:
        """Return the place of a path, without accessing the path itself."""
        mount = mount_point_of(path)
        with self._lock:
            return self._mounts.setdefault(mount, ImageMount(mount))


class ImageThread:
    """A thread that does all accesses to an image, one after the other.

    Args:
        mount: The place of the image.
        timeout: Seconds that one step may take.
    """

    def __init__(self, mount: ImageMount, timeout: float) -> None:
        self._mount = mount
        self._timeout = timeout
        self._tasks: queue.SimpleQueue[_ImageTask | None] = queue.SimpleQueue()
        self._is_hung = False
        mount.check(timeout)
        self._thread = threading.Thread(target=self._run_tasks, name=f"image below {mount.path}", daemon=True)
        self._thread.start()

    def run(self, what: str, work: Callable[[], T], check: Callable[[], object] = lambda: None) -> T:
        """Run a step in the thread and wait for it; return its result or raise its error.

        Args:
            what: The description of the step, for messages: `reading /images/a.raw`.
            work: The step.
            check: Called periodically while waiting; ends the wait by raising.

        Raises:
            ImageNotResponding: It, or an earlier step, has not returned within the limit.
        """
        began = time.monotonic()
        if self._is_hung:
            raise not_responding_error(what, 0.0, self._mount.path)
        step = _ImageTask(work)
        self._tasks.put(step)
        if not step.done.wait(_SHORT_WAIT):
            with waiting_for(f"images below {self._mount.path}"):
                self._wait(step, what, began, check)
        return step.result()  # type: ignore[no-any-return]  # what the step returned

    def _wait(self, step: _ImageTask, what: str, began: float, check: Callable[[], object]) -> None:
        while not step.done.wait(min(_RECHECK_INTERVAL, self._timeout)):
            check()
            if time.monotonic() - began >= self._timeout:
                self._is_hung = True
                self._mount.mark_hung(self, began)
                if step.done.is_set():  # it has finished just now
                    self._mount.clear_hung(self)
                raise not_responding_error(what, self._timeout, self._mount.path)

    def close(self, final_task: Callable[[], object]) -> None:
        """Run a last step, such as closing the image, and end the thread, without waiting. Call it once."""
        self._tasks.put(_ImageTask(final_task))
        self._tasks.put(None)

    def submit(self, work: Callable[[], object]) -> None:
        """Run a step without waiting for it."""
        self._tasks.put(_ImageTask(work))

    def _run_tasks(self) -> None:
        while (step := self._tasks.get()) is not None:
            step.run()
            del step  # closes an image that nobody waits for any more
            if self._is_hung:
                self._mount.clear_hung(self)


class _ImageTask:
    """A piece of work in the thread of a source, and its result."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        work, self._work = self._work, None
        assert work is not None  # noqa: S101 - each step runs once
        try:
            self._result = work()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for the step
            self._error = error
        self.done.set()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class ImageDescriptor(int):
    """A descriptor of an image that is used only in the thread of its source; see `reader_for`."""

    image_thread: ImageThread
    path: str


def reader_for(descriptor: int) -> Callable[[Callable[[], T], Callable[[], object]], T]:
    """Return a function that reads from a descriptor: in the thread of its source, or here for a plain one.

    Its arguments are the function that reads, and one that is called periodically while waiting.
    """
    if not isinstance(descriptor, ImageDescriptor):
        return lambda work, _check: work()
    return lambda work, check: descriptor.image_thread.run(f"reading the image {descriptor.path}", work, check)


def not_responding_error(what: str, seconds: float, place: str) -> ImageNotResponding:
    """Return the error for an image that does not respond."""
    lasts = f" ({format_seconds(seconds, 2)})" if seconds >= 1 else ""
    return ImageNotResponding(
        f"{what} hangs{lasts}",
        hint=f"check the file system mounted at {place}; the backend itself keeps working",
        place=place,
    )


def resolve_path(path: str, limit: float = 0.5) -> str:
    """Return a path without symbolic links; unchanged if the file system mounted there does not respond in time."""
    name = f"resolve {mount_point_of(path)}"
    for other in [thread for thread in threading.enumerate() if thread.name == name]:
        other.join(_SHORT_WAIT)
        if other.is_alive():  # another attempt hangs there already
            return os.path.normpath(path)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(os.path.realpath(path)), name=name, daemon=True)
    thread.start()
    thread.join(limit)
    return found[0] if found else os.path.normpath(path)


def is_mount_or_symlink(directory: Path, table: Path = MOUNT_TABLE) -> bool:
    """Return whether a directory is a mount point or a symbolic link, without accessing the mounted file system.

    Args:
        directory: The directory.
        table: The kernel's table of mounts.
    """
    return mount_point_of(str(directory), table) == os.path.normpath(directory) or directory.is_symlink()


def mount_point_of(path: str, table: Path = MOUNT_TABLE) -> str:
    """Return the mount point of a path from the kernel's table of mounts, without accessing the file system."""
    pure = PurePath(os.path.normpath(path))
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        mounts = {_unescape(line.split(" ", 5)[4]) for line in lines}
    except (OSError, IndexError):
        return "/"
    return next((str(each) for each in (pure, *pure.parents) if str(each) in mounts), "/")


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
