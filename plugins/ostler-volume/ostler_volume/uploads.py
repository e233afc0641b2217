"""Uploads: volumes whose content is read by their callers, with their rights, and not by the daemon.

A volume that is uploaded is `creating` from the beginning, with its name and space taken, and a partial on its backend;
so a crash leaves the same as for any other creation, and the next start removes it. Its name is held until it ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from ostler import Busy, Cancelled, Context, InvalidInput, OstlerError, waiting_for
from ostler_volume.api_types import Upload, Volume
from ostler_volume.errors import UploadNotFound
from ostler_volume.images import HEADER_SIZE, check_format
from ostler_volume.reconciler import Reconciler
from ostler_volume.volume_context import VolumeContext
from ostler_volume.volume_operations import VolumeOperations, VolumePlan

MAX_PIECE_SIZE = 1024 * 1024
"""Maximum size of a piece in bytes."""
MAX_UPLOADS_PER_CALLER = 4
MAX_UPLOADS = 16
"""Maximum number of concurrent uploads."""
MAX_UPLOAD_SECONDS = 86400.0
"""Maximum duration of an upload in seconds."""
_SHORT_WAIT = 0.02
"""Seconds after which a wait for its lock is no longer quick."""


class _UploadOwner(NamedTuple):
    uid: int
    key: str


class _RunningUpload:
    """An upload in progress. Its lock is held while a piece is written, and while it ends."""

    def __init__(self, plan: VolumePlan, owner: _UploadOwner, now: float) -> None:
        self.id = os.urandom(16).hex()
        self.plan, self.owner = plan, owner
        self.started_at = self.last_activity = now
        self.driver: Any = None
        self.locks = ExitStack()
        self.lock = threading.Lock()
        self.is_ended = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock inside the block; a backend that hangs in a piece does not block threads of others."""
        if not self.lock.acquire(timeout=_SHORT_WAIT):
            with waiting_for(f"upload {self.id}"):
                self.lock.acquire()
        try:
            yield
        finally:
            self.lock.release()


class Uploads:
    """The uploads of one service. All methods block; do not call them on the loop's thread.

    Args:
        context: Records, drivers and claims.
        volumes: Records the begin and the end of a creation.
        reconciler: Cleans up after failures.
        now: Returns the monotonic time.
    """

    def __init__(
        self, context: VolumeContext, volumes: VolumeOperations, reconciler: Reconciler, now: Callable[[], float]
    ) -> None:
        self._context = context
        self._volumes = volumes
        self._reconciler = reconciler
        self._now = now
        self._lock = threading.Lock()
        self._running: dict[str, _RunningUpload] = {}

    def begin(self, ctx: Context, plan: VolumePlan) -> Upload:
        """Begin a volume whose content will be uploaded in pieces.

        Raises:
            Busy: The limit of uploads of this caller, or of all callers, is reached.
            RequestError: The volume was refused, and nothing has changed.
        """
        running = self._add(plan, _owner_of(ctx))
        # Held until it can be used: it must not be cancelled while it begins.
        with running.locked():
            try:
                running.locks.enter_context(self._context.locks.lock_shared(ctx, plan.name))
                running.driver, made = self._volumes.begin(plan)
                running.plan = made
                with self._volumes.undo_on_error(plan.name, running.driver):
                    running.driver.begin_upload(ctx, plan.name, made.size)
            except BaseException:
                self._drop(running)
                raise
            running.last_activity = self._now()
        return Upload(
            id=running.id,
            name=made.name,
            size=made.size,
            backend=made.backend,
            piece=MAX_PIECE_SIZE,
            host=self._context.host,
        )

    def write(self, ctx: Context, upload_id: str, offset: int, data: bytes) -> None:
        """Write a piece of the content.

        Raises:
            UploadNotFound: The caller has no such upload.
            InvalidInput: The piece is too large, or outside of the announced length.
            BadImage: The content is not raw.
        """
        running = self._find(ctx, upload_id)
        with running.locked():
            _check_not_ended(running)
            length = running.plan.length
            if len(data) > MAX_PIECE_SIZE or offset < 0 or offset + len(data) > length:
                raise InvalidInput(
                    f"invalid piece: {len(data)} bytes at {offset} of {length}",
                    hint=f"a piece has at most {MAX_PIECE_SIZE} bytes",
                )
            if offset == 0:
                check_format(data[:HEADER_SIZE], running.plan.origin.upload)
            running.driver.write_upload(running.plan.name, offset, data)
            running.last_activity = self._now()

    def finish(self, ctx: Context, upload_id: str) -> Volume:
        """Complete the volume from the uploaded content; missing parts are zeros.

        Raises:
            UploadNotFound: The caller has no such upload.
        """
        running = self._find(ctx, upload_id)
        with running.locked():
            _check_not_ended(running)
            name = running.plan.name
            try:
                with self._volumes.undo_on_error(name, running.driver):
                    running.driver.finish_upload(ctx, name)
                return self._volumes.finish(name)
            finally:
                self._drop(running)

    def cancel(self, ctx: Context, upload_id: str) -> None:
        """Cancel an upload and remove its content.

        Raises:
            UploadNotFound: The caller has no such upload.
        """
        self._abort(self._find(ctx, upload_id), "cancelled by its caller")

    def expire(self, idle: float) -> None:
        """Cancel uploads without data for this many seconds: their callers are gone."""
        now = self._now()
        for each in self._all():
            # An upload is not idle while a piece is being written, however long that takes.
            if not each.lock.locked() and (
                now - each.last_activity > idle or now - each.started_at > MAX_UPLOAD_SECONDS
            ):
                self._abort(each, "no data received in time")

    def close(self) -> None:
        """Cancel all uploads."""
        for each in self._all():
            self._abort(each, "the service is stopping")

    def _all(self) -> list[_RunningUpload]:
        with self._lock:
            return list(self._running.values())

    def _abort(self, running: _RunningUpload, why: str) -> None:
        with running.locked():
            if running.is_ended:
                return
            name = running.plan.name
            try:
                error = Cancelled(f"the upload of {name} has ended: {why}")
                self._reconciler.recover(name, running.driver, error)
            except OstlerError as failure:
                self._context.log.warning("cannot clean up the upload of %s: %s", name, failure)
            finally:
                self._drop(running)

    def _add(self, plan: VolumePlan, owner: _UploadOwner) -> _RunningUpload:
        with self._lock:
            mine = sum(each.owner == owner for each in self._running.values())
            if mine >= MAX_UPLOADS_PER_CALLER or len(self._running) >= MAX_UPLOADS:
                whose = f"{mine} of this caller" if mine >= MAX_UPLOADS_PER_CALLER else f"{MAX_UPLOADS} of all callers"
                raise Busy(f"too many uploads: {whose}", hint="retry when one has ended", retry_after=5.0)
            running = _RunningUpload(plan, owner, self._now())
            self._running[running.id] = running
        return running

    def _drop(self, running: _RunningUpload) -> None:
        running.is_ended = True
        with self._lock:
            self._running.pop(running.id, None)
        running.locks.close()

    def _find(self, ctx: Context, upload_id: str) -> _RunningUpload:
        with self._lock:
            found = self._running.get(upload_id)
        if found is None or found.owner != _owner_of(ctx):
            raise _upload_not_found()
        return found


def _check_not_ended(running: _RunningUpload) -> None:
    if running.is_ended:
        raise _upload_not_found()


def _upload_not_found() -> UploadNotFound:
    return UploadNotFound("upload not found", hint="it has ended, or received no data in time; start again")


def _owner_of(ctx: Context) -> _UploadOwner:
    return _UploadOwner(ctx.peer.uid, ctx.peer.key)
