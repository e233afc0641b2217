"""What touches the place of an image, in a thread of its own and within a limit.

Images lie where others put them: on shares whose server dies, on mounts of every kind. A read there that never comes
back must cost the request that wanted it, and not the backend that was to take the copy: so the backend's threads never
touch the place of an image themselves. They wait for a thread that does, within a limit, and go on without it.
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

from ostler import waiting_for
from ostler_volume.errors import ImageNotResponding

T = TypeVar("T")
_QUICK = 0.02
"""Seconds after which a wait is no longer quick."""
_RECHECK = 0.25
"""Seconds between two looks at whether the request is still wanted."""
_MAX_HUNG = 8
"""Threads that may hang in one place; from then on nothing is tried there."""
_MOUNTS = Path("/proc/self/mountinfo")


class Place:
    """A file system that images are read from: whether something hangs there, and since when.

    Args:
        path: Its mount point.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        # By `id`: they are there for as long as they hang.
        self._hung: dict[int, float] = {}
        self._tried = 0.0

    def hangs(self, source: ImageSource, since: float) -> None:
        """Take note of a thread that has outlived its limit; `since` is a moment of the monotonic clock."""
        with self._lock:
            self._hung[id(source)] = since
            self._tried = time.monotonic()

    def came_back(self, source: ImageSource) -> None:
        """Take note that a thread has come back."""
        with self._lock:
            self._hung.pop(id(source), None)

    def check(self, limit: float) -> None:
        """Refuse to touch a place where something hangs, but for one try now and then.

        Raises:
            ImageNotResponding: Something hangs there.
        """
        now = time.monotonic()
        with self._lock:
            if not self._hung or (len(self._hung) < _MAX_HUNG and now - self._tried > limit):
                self._tried = now
                return
            since = min(self._hung.values())
        raise not_responding(f"{self.path}, where the image lies,", now - since, self.path)


class Places:
    """The places that the images of one backend come from, by their mount points. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}

    def of(self, path: str) -> Place:
        """Return where a path lies; the path itself is not touched for that."""
        mount = mount_of(path)
        with self._lock:
            return self._places.setdefault(mount, Place(mount))


class ImageSource:
    """A thread that does all that touches one image, one after the other.

    Args:
        place: Where the image lies.
        limit: Seconds that one step may take.
    """

    def __init__(self, place: Place, limit: float) -> None:
        self._place = place
        self._limit = limit
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        self._hangs = False
        place.check(limit)
        self._thread = threading.Thread(target=self._run, name=f"image below {place.path}", daemon=True)
        self._thread.start()

    def do(self, what: str, work: Callable[[], T], check: Callable[[], object] = lambda: None) -> T:
        """Have the thread do a step and wait for it; return its result or raise its error.

        Args:
            what: What the step is, for messages: `reading /images/a.raw`.
            work: The step.
            check: Called now and then while it is waited for; ends the wait by raising.

        Raises:
            ImageNotResponding: It has not come back within the limit, or one before it has not.
        """
        began = time.monotonic()
        if self._hangs:
            raise not_responding(what, 0.0, self._place.path)
        step = _Step(work)
        self._steps.put(step)
        if not step.done.wait(_QUICK):
            with waiting_for(f"images below {self._place.path}"):
                self._wait(step, what, began, check)
        return step.outcome()  # type: ignore[no-any-return]  # what the step returned

    def _wait(self, step: _Step, what: str, began: float, check: Callable[[], object]) -> None:
        while not step.done.wait(min(_RECHECK, self._limit)):
            check()
            if time.monotonic() - began >= self._limit:
                self._hangs = True
                self._place.hangs(self, began)
                if step.done.is_set():  # in this very moment
                    self._place.came_back(self)
                raise not_responding(what, self._limit, self._place.path)

    def close(self, last: Callable[[], object]) -> None:
        """Have the thread do a last step, such as closing the image, and end; nobody waits for that. Once."""
        self._steps.put(_Step(last))
        self._steps.put(None)

    def later(self, work: Callable[[], object]) -> None:
        """Have the thread do a step that nobody waits for."""
        self._steps.put(_Step(work))

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            step.run()
            del step  # an image that nobody waits for any more is closed now
            if self._hangs:
                self._place.came_back(self)


class _Step:
    """A piece of work in the thread of a source, and what became of it."""

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
        except BaseException as error:  # noqa: BLE001 - it is raised where the step is waited for
            self._error = error
        self.done.set()

    def outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class SourceDescriptor(int):
    """A descriptor of an image that is touched in the thread of its source only; see `reader_of`."""

    source: ImageSource
    path: str


def reader_of(descriptor: int) -> Callable[[Callable[[], T], Callable[[], object]], T]:
    """Return what reads from a descriptor: in the thread of its source, or here when it is a plain one.

    It is called with what reads, and what is called now and then while that is waited for.
    """
    if not isinstance(descriptor, SourceDescriptor):
        return lambda work, _check: work()
    return lambda work, check: descriptor.source.do(f"reading the image {descriptor.path}", work, check)


def not_responding(what: str, seconds: float, place: str) -> ImageNotResponding:
    """Return the error for an image that does not answer."""
    lasts = f" for {seconds:.0f} s" if seconds >= 1 else ""
    return ImageNotResponding(
        f"{what} has not come back{lasts}",
        hint=f"see to what is mounted at {place}; the backend itself goes on",
        place=place,
    )


def resolved(path: str, limit: float = 0.5) -> str:
    """Return a path without symbolic links; as it is written, when what is mounted there does not answer in time."""
    name = f"resolve {mount_of(path)}"
    for other in [thread for thread in threading.enumerate() if thread.name == name]:
        other.join(_QUICK)
        if other.is_alive():  # another look there hangs already
            return os.path.normpath(path)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(os.path.realpath(path)), name=name, daemon=True)
    thread.start()
    thread.join(limit)
    return found[0] if found else os.path.normpath(path)


def lies_elsewhere(directory: Path) -> bool:
    """Return whether something is mounted at a directory, or it is a symbolic link; what is there is not touched."""
    return mount_of(str(directory)) == os.path.normpath(directory) or directory.is_symlink()


def mount_of(path: str) -> str:
    """Return the mount point below which a path lies, by the kernel's table; nothing is looked up on a file system."""
    pure = PurePath(os.path.normpath(path))
    try:
        table = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        mounts = {_unescaped(line.split(" ", 5)[4]) for line in table.splitlines()}
    except (OSError, IndexError):
        return "/"
    return next((str(each) for each in (pure, *pure.parents) if str(each) in mounts), "/")


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
