"""The records of backends: their promises on shared file systems, and whether volumes are recorded on them.

Two backends on one file system, of one service or of two, share its free space. What one has promised and not yet
written is subtracted from the other, in the same write that adds a promise, so that two requests never get the same
space.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import peewee

from ostler import Json, KeyValue, Store
from ostler_volume.backend_identity import IDENTITY_KEY, RECORDS_KEY
from ostler_volume.tables import BackendRow, SnapshotRow, VolumeRow


class BackendMeasurement(NamedTuple):
    """The measurement of a backend: `unrecorded` is the size of files without a record."""

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
        self._recorded: dict[str, BackendMeasurement] = {}
        self._filesystems: dict[str, str] = {}

    def record_measurement(self, backend: str, seen: BackendMeasurement) -> None:
        """Record the measurement of a backend, if it has changed.

        Raises:
            StoreError: The database cannot be written.
        """
        self._filesystems[backend] = seen.filesystem
        if self._recorded.get(backend) == seen:
            return
        key = {"topic": self._topic, "name": backend}
        self._store.write(
            lambda: (
                BackendRow.insert(**key, **seen._asdict())
                .on_conflict(
                    conflict_target=[BackendRow.topic, BackendRow.name],
                    preserve=[getattr(BackendRow, field) for field in BackendMeasurement._fields],
                )
                .execute()
            ),
            label=f"note backend {backend}",
        )
        self._recorded[backend] = seen

    def on_same_filesystem(self, backend: str) -> list[str]:
        """Return a backend, and the other backends of this service that were measured on its file system."""
        own = self._filesystems.get(backend)
        others = [name for name, found in self._filesystems.copy().items() if own and found == own and name != backend]
        return [backend, *others]

    def clear_unconfigured(self, backends: Iterable[str]) -> None:
        """Count all promises of backends that are not in the configuration as unwritten, because nobody measures them.

        Raises:
            StoreError: The database cannot be written.
        """
        gone = (BackendRow.topic == self._topic) & BackendRow.name.not_in([*backends])
        gone &= (BackendRow.written > 0) | (BackendRow.unrecorded > 0)
        if self._store.read(lambda: BackendRow.select().where(gone).exists()):
            self._store.write(lambda: BackendRow.update(written=0, unrecorded=0).where(gone).execute())

    def identity(self, backend: str) -> Json:
        """Return the identity that a driver of this name has stored, None without one."""
        found: Json = self._driver_store(backend).get(IDENTITY_KEY)
        return found

    def forget_identity(self, backend: str) -> None:
        """Accept any directory at the next start of a backend."""
        self._driver_store(backend).delete(IDENTITY_KEY)

    def has_records_mark(self, backend: str) -> bool:
        """Return whether the driver of a backend knows that volumes are recorded on it."""
        return bool(self._driver_store(backend).get(RECORDS_KEY))

    def _driver_store(self, backend: str) -> KeyValue:
        return self._store.kv(f"driver/{self._topic}/{backend}")

    # All methods below run inside a read or a write.

    def update_records_mark(self, backend: str) -> None:
        """Store for the next start of the driver whether volumes are recorded on its backend; inside a write."""
        used = self._volumes(self._topic, backend).exists()
        kept = self._driver_store(backend)
        if bool(kept.get(RECORDS_KEY)) != used:
            kept.set(RECORDS_KEY, used)

    def delete_backend(self, backend: str) -> None:
        """Delete all data of a backend whose records were moved to another one; inside a write."""
        BackendRow.delete().where(BackendRow.topic == self._topic, BackendRow.name == backend).execute()
        self._recorded.pop(backend, None)
        self._filesystems.pop(backend, None)
        kept = self._driver_store(backend)
        for key in (IDENTITY_KEY, RECORDS_KEY):
            kept.delete(key)

    def record_freed(self, backend: str, size: int) -> None:
        """Record that a file was deleted: until the next measurement it counts as fully written."""
        rows = (BackendRow.topic == self._topic) & (BackendRow.name == backend)
        BackendRow.update(written=peewee.fn.MAX(0, BackendRow.written - size)).where(rows).execute()
        self._recorded.pop(backend, None)

    def promised_by_others(self, backend: str) -> int:
        """Return the unwritten promises of other backends on this one's file system, scaled to its oversubscription.

        For a backend without oversubscription the promises of others count in full, because it has to fulfil its own.
        An oversubscribed one divides those of others by its own factor.
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
