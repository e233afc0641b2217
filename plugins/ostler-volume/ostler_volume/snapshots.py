"""What is done with snapshots."""

from __future__ import annotations

from ostler import Conflict, Context, describe
from ostler_volume.driver import SNAPSHOT
from ostler_volume.errors import AlreadyExists
from ostler_volume.reconcile import Reconciler
from ostler_volume.states import SnapshotState
from ostler_volume.wire import Snapshot
from ostler_volume.workshop import Workshop


class SnapshotWork:
    """Creates and deletes snapshots. Everything blocks."""

    def __init__(self, workshop: Workshop, reconciler: Reconciler) -> None:
        self._shop = workshop
        self._reconciler = reconciler

    def create(self, ctx: Context, volume: str, name: str) -> Snapshot:
        """Keep the content of a volume as it is now.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
            CallCancelled: The caller took it back, and nothing is left of it.
        """
        key, records = f"{volume}@{name}", self._shop.records
        with self._shop.claims.hold(ctx, volume):
            backend = records.volume(volume).backend
            driver = self._shop.backend(backend, SNAPSHOT)
            records.add_snapshot(volume, name, self._shop.limit(backend, driver))
            try:
                driver.create_snapshot(ctx, volume, name)
            except AlreadyExists:
                records.remove_snapshot(volume, name)  # the file that is in the way is not ours
                raise
            except Exception as error:
                self._reconciler.recover(key, driver, error)
                raise
            made = records.move_snapshot(volume, name, SnapshotState.AVAILABLE)
        self._shop.log.info("snapshot %s is made", key)
        self._shop.tell("snapshot-created", {"volume": volume, "name": name})
        return made

    def delete(self, ctx: Context, volume: str, name: str) -> None:
        """Delete a snapshot.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        records = self._shop.records
        with self._shop.claims.hold(ctx, volume):
            before = records.snapshot(volume, name)
            driver = self._shop.working(before.backend, SNAPSHOT)
            records.begin_deleting_snapshot(volume, name)
            try:
                driver.discard(f"{volume}@{name}")
                driver.delete_snapshot(volume, name)
            except Conflict:
                records.move_snapshot(volume, name, SnapshotState(before.state), why=before.why, fault=before.fault)
                raise
            except Exception as error:
                self._reconciler.fail(f"{volume}@{name}", describe(error))
                raise
            records.remove_snapshot(volume, name)
        self._shop.log.info("snapshot %s@%s is deleted", volume, name)
        self._shop.tell("snapshot-deleted", {"volume": volume, "name": name})
