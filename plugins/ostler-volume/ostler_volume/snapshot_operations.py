"""The operations on snapshots."""

from __future__ import annotations

from ostler import Conflict, Context, error_line
from ostler_volume.api_types import Snapshot
from ostler_volume.driver import SNAPSHOT
from ostler_volume.durable_steps import BEGUN, DONE, as_step, recorded
from ostler_volume.errors import AlreadyExists, SnapshotNotFound, VolumeNotFound, WrongState
from ostler_volume.reconciler import Reconciler
from ostler_volume.volume_context import VolumeContext
from ostler_volume.volume_states import SnapshotState


class SnapshotOperations:
    """Creates and deletes snapshots. All methods block."""

    def __init__(self, context: VolumeContext, reconciler: Reconciler) -> None:
        self._context = context
        self._reconciler = reconciler

    def create(self, ctx: Context, volume: str, name: str) -> Snapshot:
        """Create a snapshot of a volume.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
            Cancelled: The caller cancelled it, and nothing is left.
        """
        with self._context.locks.lock_shared(ctx, volume):
            before = recorded(ctx, BEGUN, Snapshot)
            made = recorded(ctx, DONE, Snapshot) or self._resumed(volume, name, before)
            if made is None:
                made = self._create(ctx, volume, name, before)
        self._context.log.info("created snapshot %s@%s", volume, name)
        self._context.notify("snapshot-created", {"volume": volume, "name": name})
        return made

    def _create(self, ctx: Context, volume: str, name: str, before: Snapshot | None) -> Snapshot:
        key, records = f"{volume}@{name}", self._context.records
        backend = records.volume(volume).backend
        driver = self._context.ready_driver(backend, SNAPSHOT)
        limit = self._context.limit(backend, driver)
        if before is None:
            records.add_snapshot(volume, name, limit, run=as_step(ctx, BEGUN, Snapshot))
        else:
            records.add_snapshot(volume, name, limit, created=before.created)
        try:
            driver.create_snapshot(ctx, volume, name)
        except AlreadyExists:
            records.delete_snapshot(volume, name)  # the existing file is not ours
            raise
        except Exception as error:
            self._reconciler.recover(key, driver, error)
            raise
        return records.move_snapshot(volume, name, SnapshotState.AVAILABLE, run=as_step(ctx, DONE, Snapshot))

    def _resumed(self, volume: str, name: str, before: Snapshot | None) -> Snapshot | None:
        """Return the snapshot that an interrupted attempt has created; None if it has to be created.

        Args:
            volume: Its volume; the caller holds it.
            name: Its name.
            before: What the attempt recorded when it began; None if none has begun.

        Raises:
            AlreadyExists: The name belongs to another snapshot meanwhile.
            WrongState: It is in error.
            DriverNotReady: Its backend is not ready yet.
        """
        if before is None:
            return None
        try:
            found = self._context.records.snapshot(volume, name)
            if found.created == before.created and found.state in (SnapshotState.CREATING, SnapshotState.ERROR):
                self._reconciler.resume(f"{volume}@{name}", self._context.ready_driver(found.backend))
                found = self._context.records.snapshot(volume, name)
        except SnapshotNotFound:
            return None
        if found.created != before.created:
            raise AlreadyExists(f"snapshot {volume}@{name} is another one now", hint="choose another name", name=name)
        if found.state == SnapshotState.ERROR:
            raise WrongState(f"snapshot {volume}@{name} is in error: {found.why}", hint="delete it", name=name)
        return found

    def delete(self, ctx: Context, volume: str, name: str) -> None:
        """Delete a snapshot.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._context.locks.lock_shared(ctx, volume):
            begun = recorded(ctx, BEGUN, Snapshot)
            if (before := self._snapshot_to_delete(volume, name, begun)) is not None:
                self._delete(ctx, before, begun)
        self._context.log.info("deleted snapshot %s@%s", volume, name)
        self._context.notify("snapshot-deleted", {"volume": volume, "name": name})

    def _snapshot_to_delete(self, volume: str, name: str, begun: Snapshot | None) -> Snapshot | None:
        """Return the snapshot; None if an interrupted attempt, which has recorded `begun`, had deleted it."""
        try:
            found = self._context.records.snapshot(volume, name)
        except (SnapshotNotFound, VolumeNotFound):
            if begun is None:
                raise
            return None
        return None if begun is not None and found.created != begun.created else found

    def _delete(self, ctx: Context, snapshot: Snapshot, begun: Snapshot | None) -> None:
        records, volume, name = self._context.records, snapshot.volume, snapshot.name
        driver = self._context.present_driver(snapshot.backend, SNAPSHOT)
        if begun is None:
            before = records.begin_deleting_snapshot(volume, name, as_step(ctx, BEGUN, Snapshot))
        elif snapshot.state != SnapshotState.DELETING:
            before = records.begin_deleting_snapshot(volume, name)
        else:
            before = begun
        try:
            driver.discard(f"{volume}@{name}")
            driver.delete_snapshot(volume, name)
        except Conflict:
            records.move_snapshot(volume, name, SnapshotState(before.state), why=before.why, fault=before.fault)
            raise
        except Exception as error:
            self._reconciler.fail(f"{volume}@{name}", error_line(error))
            raise
        records.delete_snapshot(volume, name)
