"""The operations on snapshots."""

from __future__ import annotations

from ostler import Conflict, Context, error_line
from ostler_volume.api_types import Snapshot
from ostler_volume.driver import SNAPSHOT
from ostler_volume.errors import AlreadyExists
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
        key, records = f"{volume}@{name}", self._context.records
        with self._context.locks.lock_shared(ctx, volume):
            backend = records.volume(volume).backend
            driver = self._context.ready_driver(backend, SNAPSHOT)
            records.add_snapshot(volume, name, self._context.limit(backend, driver))
            try:
                driver.create_snapshot(ctx, volume, name)
            except AlreadyExists:
                records.delete_snapshot(volume, name)  # the existing file is not ours
                raise
            except Exception as error:
                self._reconciler.recover(key, driver, error)
                raise
            made = records.move_snapshot(volume, name, SnapshotState.AVAILABLE)
        self._context.log.info("created snapshot %s", key)
        self._context.notify("snapshot-created", {"volume": volume, "name": name})
        return made

    def delete(self, ctx: Context, volume: str, name: str) -> None:
        """Delete a snapshot.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        records = self._context.records
        with self._context.locks.lock_shared(ctx, volume):
            before = records.snapshot(volume, name)
            driver = self._context.present_driver(before.backend, SNAPSHOT)
            records.begin_deleting_snapshot(volume, name)
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
        self._context.log.info("deleted snapshot %s@%s", volume, name)
        self._context.notify("snapshot-deleted", {"volume": volume, "name": name})
