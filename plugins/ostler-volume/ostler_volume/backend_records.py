"""What the database has on backends: what they have promised on a shared file system, and whether volumes are there.

Two backends on one file system, of one service or of two, share what is free there. What one has promised and not yet
written is taken from the other, in the same write that promises anew, so that two requests never get the same room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import peewee

from ostler import Json, KeyValue, Store
from ostler_volume.identity import KEY, RECORDS_KEY
from ostler_volume.tables import BackendRow, SnapshotRow, VolumeRow


class Seen(NamedTuple):
    """A backend as it was measured: `unrecorded` are the sizes of files without a record."""

    filesystem: str
    oversubscription: float
    written: int
    unrecorded: int


class BackendRecords:
    """The backends of one service, and the promises of all others on their file systems. Blocks.

    Args:
        store: The daemon's store.
        topic: The service's topic.
    """

    def __init__(self, store: Store, topic: str) -> None:
        self._store = store
        self._topic = topic
        self._noted: dict[str, Seen] = {}
        self._filesystems: dict[str, str] = {}

    def note(self, backend: str, seen: Seen) -> None:
        """Write down how a backend was measured, if that has changed.

        Raises:
            StoreError: It cannot be written.
        """
        self._filesystems[backend] = seen.filesystem
        if self._noted.get(backend) == seen:
            return
        key = {"topic": self._topic, "name": backend}
        self._store.write(
            lambda: (
                BackendRow.insert(**key, **seen._asdict())
                .on_conflict(
                    conflict_target=[BackendRow.topic, BackendRow.name],
                    preserve=[getattr(BackendRow, field) for field in Seen._fields],
                )
                .execute()
            ),
            label=f"note backend {backend}",
        )
        self._noted[backend] = seen

    def sharing(self, backend: str) -> list[str]:
        """Return a backend, and the others of this service that are on its file system as far as they were measured."""
        own = self._filesystems.get(backend)
        others = [name for name, found in self._filesystems.copy().items() if own and found == own and name != backend]
        return [backend, *others]

    def keep_only(self, backends: Iterable[str]) -> None:
        """Count all promises of backends that are not in the configuration as not yet written: nobody measures them.

        Raises:
            StoreError: It cannot be written.
        """
        gone = (BackendRow.topic == self._topic) & BackendRow.name.not_in([*backends])
        gone &= (BackendRow.written > 0) | (BackendRow.unrecorded > 0)
        if self._store.read(lambda: BackendRow.select().where(gone).exists()):
            self._store.write(lambda: BackendRow.update(written=0, unrecorded=0).where(gone).execute())

    def identity(self, backend: str) -> Json:
        """Return what a driver of this name has remembered of itself, None for nothing."""
        found: Json = self._driver_store(backend).get(KEY)
        return found

    def forget_identity(self, backend: str) -> None:
        """Let the next start of a backend take its directory as it is then."""
        self._driver_store(backend).delete(KEY)

    def is_marked(self, backend: str) -> bool:
        """Return whether the driver of a backend has been told that volumes are recorded on it."""
        return bool(self._driver_store(backend).get(RECORDS_KEY))

    def _driver_store(self, backend: str) -> KeyValue:
        return self._store.kv(f"driver/{self._topic}/{backend}")

    # From here on everything runs inside a read or a write.

    def mark(self, backend: str) -> None:
        """Have the driver know, at its next start, whether volumes are recorded on its backend; inside a write."""
        used = self._volumes(self._topic, backend).exists()
        kept = self._driver_store(backend)
        if bool(kept.get(RECORDS_KEY)) != used:
            kept.set(RECORDS_KEY, used)

    def retire(self, backend: str) -> None:
        """Forget all that is known of a backend whose records have moved to another one; inside a write."""
        BackendRow.delete().where(BackendRow.topic == self._topic, BackendRow.name == backend).execute()
        self._noted.pop(backend, None)
        self._filesystems.pop(backend, None)
        kept = self._driver_store(backend)
        for key in (KEY, RECORDS_KEY):
            kept.delete(key)

    def freed(self, backend: str, size: int) -> None:
        """Take note that a file was deleted: until the next measurement it counts as one that was written in full."""
        rows = (BackendRow.topic == self._topic) & (BackendRow.name == backend)
        BackendRow.update(written=peewee.fn.MAX(0, BackendRow.written - size)).where(rows).execute()
        self._noted.pop(backend, None)

    def claims(self, backend: str) -> int:
        """Return what other backends have promised and not yet written on this one's file system, at its own measure.

        A backend that promises each byte once must be able to keep that, so the promises of others count in full for
        it. One that is oversubscribed takes those of others for as oversubscribed as its own.
        """
        own = self._row(backend)
        if own is None or not own.filesystem:
            return 0
        factor = own.oversubscription
        others = BackendRow.select().where(BackendRow.filesystem == own.filesystem, BackendRow.id != own.id)
        left = sum(self._unwritten(other, min(factor, other.oversubscription)) for other in others)
        return int(left * factor)

    def _row(self, backend: str) -> Any:
        return BackendRow.select().where(BackendRow.topic == self._topic, BackendRow.name == backend).first()

    def _unwritten(self, other: Any, factor: float) -> float:
        promised = self.promised(other.topic, other.name) + other.unrecorded
        left: float = promised / factor - other.written
        return max(0.0, left)

    def promised(self, topic: str, backend: str) -> int:
        """Return the bytes that are promised to the volumes and snapshots of a backend."""
        volumes = self._volumes(topic, backend, peewee.fn.SUM(VolumeRow.promised)).scalar()
        snapshots = (
            SnapshotRow.select(peewee.fn.SUM(SnapshotRow.size))
            .join(VolumeRow)
            .where(VolumeRow.topic == topic, VolumeRow.backend == backend)
            .scalar()
        )
        return int(volumes or 0) + int(snapshots or 0)

    @staticmethod
    def _volumes(topic: str, backend: str, *columns: Any) -> Any:
        return VolumeRow.select(*columns).where(VolumeRow.topic == topic, VolumeRow.backend == backend)
