"""Volumes whose content their callers hand over: what a caller may read, the caller reads, and not the daemon.

A volume that is uploaded is `creating` from the first moment, with its name and room taken, and a partial on its
backend; so a crash leaves what any other creation leaves, and the next start clears it. Until it ends its name is held.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from ostler import Busy, CallCancelled, Context, InvalidInput, OstlerError, waiting_for
from ostler_volume.errors import UploadNotFound
from ostler_volume.images import HEAD, check_format
from ostler_volume.reconcile import Reconciler
from ostler_volume.volumes import Plan, VolumeWork
from ostler_volume.wire import Upload, Volume
from ostler_volume.workshop import Workshop

PIECE = 1024 * 1024
"""Bytes of one piece."""
MOST_OF_CALLER = 4
MOST = 16
"""Uploads at once."""
LONGEST = 86400.0
"""Seconds that an upload may take, whatever comes meanwhile."""
_QUICK = 0.02
"""Seconds after which a wait for its lock is no longer quick."""


class _Owner(NamedTuple):
    uid: int
    key: str


class _Running:
    """An upload that has begun. Its lock is held while a piece is written, and while it ends."""

    def __init__(self, plan: Plan, owner: _Owner, now: float) -> None:
        self.id = os.urandom(16).hex()
        self.plan, self.owner = plan, owner
        self.began = self.touched = now
        self.driver: Any = None
        self.held = ExitStack()
        self.lock = threading.Lock()
        self.ended = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock inside the block; a backend that hangs in a piece takes no thread from others meanwhile."""
        if not self.lock.acquire(timeout=_QUICK):
            with waiting_for(f"upload {self.id}"):
                self.lock.acquire()
        try:
            yield
        finally:
            self.lock.release()


class Uploads:
    """The uploads of one service. Everything blocks; any thread but the loop's.

    Args:
        workshop: Records, drivers and claims.
        volumes: What writes down that a volume is being made, and is made.
        reconciler: What clears up after one that failed.
        now: Tells the monotonic time.
    """

    def __init__(
        self, workshop: Workshop, volumes: VolumeWork, reconciler: Reconciler, now: Callable[[], float]
    ) -> None:
        self._shop = workshop
        self._volumes = volumes
        self._reconciler = reconciler
        self._now = now
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}

    def begin(self, ctx: Context, plan: Plan) -> Upload:
        """Begin a volume whose content will come in pieces.

        Raises:
            Busy: This caller, or all together, have as many uploads as they may.
            RequestError: The volume was refused, and nothing has changed.
        """
        running = self._add(plan, _owner(ctx))
        # Held until it can be used: it must not be given up while it begins.
        with running.locked():
            try:
                running.held.enter_context(self._shop.claims.hold(ctx, plan.name))
                running.driver, made = self._volumes.begin(plan)
                running.plan = made
                with self._volumes.undone(plan.name, running.driver):
                    running.driver.begin_upload(ctx, plan.name, made.size)
            except BaseException:
                self._drop(running)
                raise
            running.touched = self._now()
        return Upload(
            id=running.id, name=made.name, size=made.size, backend=made.backend, piece=PIECE, host=self._shop.host
        )

    def write(self, ctx: Context, number: str, offset: int, data: bytes) -> None:
        """Write a piece of the content.

        Raises:
            UploadNotFound: This caller has no such upload.
            InvalidInput: The piece is too large, or lies outside of what was announced.
            BadImage: The content is in another format than raw.
        """
        running = self._find(ctx, number)
        with running.locked():
            _check_running(running)
            length = running.plan.length
            if len(data) > PIECE or offset < 0 or offset + len(data) > length:
                raise InvalidInput(
                    f"{len(data)} bytes at {offset} are not a piece of {length} bytes", hint=f"at most {PIECE} at once"
                )
            if offset == 0:
                check_format(data[:HEAD], running.plan.origin.upload)
            running.driver.write_upload(running.plan.name, offset, data)
            running.touched = self._now()

    def finish(self, ctx: Context, number: str) -> Volume:
        """Make the volume of what was handed over; what was not is zeros.

        Raises:
            UploadNotFound: This caller has no such upload.
        """
        running = self._find(ctx, number)
        with running.locked():
            _check_running(running)
            name = running.plan.name
            try:
                with self._volumes.undone(name, running.driver):
                    running.driver.finish_upload(ctx, name)
                return self._volumes.finish(name)
            finally:
                self._drop(running)

    def cancel(self, ctx: Context, number: str) -> None:
        """Give an upload up; nothing is left of it.

        Raises:
            UploadNotFound: This caller has no such upload.
        """
        self._give_up(self._find(ctx, number), "its caller gave it up")

    def expire(self, idle: float) -> None:
        """Give up those of whom nothing has come for so many seconds: their callers have left."""
        now = self._now()
        for each in self._all():
            # One that a piece is just written of is not idle, however long that takes.
            if not each.lock.locked() and (now - each.touched > idle or now - each.began > LONGEST):
                self._give_up(each, "nothing came for too long")

    def close(self) -> None:
        """Give all of them up."""
        for each in self._all():
            self._give_up(each, "the service stops")

    def _all(self) -> list[_Running]:
        with self._lock:
            return list(self._running.values())

    def _give_up(self, running: _Running, why: str) -> None:
        with running.locked():
            if running.ended:
                return
            name = running.plan.name
            try:
                error = CallCancelled(f"the upload of {name} has ended: {why}")
                self._reconciler.recover(name, running.driver, error)
            except OstlerError as failure:
                self._shop.log.warning("the upload of %s cannot be cleared up: %s", name, failure)
            finally:
                self._drop(running)

    def _add(self, plan: Plan, owner: _Owner) -> _Running:
        with self._lock:
            mine = sum(each.owner == owner for each in self._running.values())
            if mine >= MOST_OF_CALLER or len(self._running) >= MOST:
                whose = f"you have {mine}" if mine >= MOST_OF_CALLER else f"there are {MOST}"
                raise Busy(f"{whose} uploads already", hint="wait until one has ended", retry_after=5.0)
            running = _Running(plan, owner, self._now())
            self._running[running.id] = running
        return running

    def _drop(self, running: _Running) -> None:
        running.ended = True
        with self._lock:
            self._running.pop(running.id, None)
        running.held.close()

    def _find(self, ctx: Context, number: str) -> _Running:
        with self._lock:
            found = self._running.get(number)
        if found is None or found.owner != _owner(ctx):
            raise _unknown()
        return found


def _check_running(running: _Running) -> None:
    if running.ended:
        raise _unknown()


def _unknown() -> UploadNotFound:
    return UploadNotFound("there is no such upload", hint="it has ended, or nothing came for too long: begin again")


def _owner(ctx: Context) -> _Owner:
    return _Owner(ctx.peer.uid, ctx.peer.key)
