"""The records of volumes and snapshots: the only module that reads and writes their tables.

Every change is one `store.write`, which checks the state against the table of transitions and sets it. There is one
writer thread, so of two requests that race for a name or a volume one sees the other's state and is refused.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import peewee

from ostler import NoCapacity, Store, StoreUnavailable, format_size
from ostler_volume.api_types import Snapshot, Volume
from ostler_volume.argument_validation import Origin, split_snapshot_name
from ostler_volume.backend_records import BackendRecords
from ostler_volume.durable_steps import RunChange, run_directly
from ostler_volume.errors import AlreadyExists, BadSize, HasSnapshots, SnapshotNotFound, VolumeNotFound, WrongState
from ostler_volume.reconcile_plan import RepairAction
from ostler_volume.tables import AttachmentRow, SnapshotRow, VolumeRow
from ostler_volume.volume_directory import capacity_hint
from ostler_volume.volume_states import (
    SNAPSHOT_TRANSITIONS,
    STATE_HINTS,
    STATE_VERBS,
    VOLUME_TRANSITIONS,
    SnapshotState,
    VolumeState,
)

T = TypeVar("T")
R = TypeVar("R", Volume, Snapshot)
_MAX_SHOWN_NAMES = 5
"""Maximum number of volumes in error that are named in the status."""


class Records:
    """The records of one service. All methods block; do not call them on the loop's thread.

    Args:
        store: The daemon's store.
        topic: The service's topic; services of this manager on different topics have separate volumes.
        host: The host name in results.
        now: Returns the wall time.
        on_change: Called with the backend after each change of its promises or its files.
    """

    def __init__(
        self,
        store: Store,
        topic: str,
        host: str,
        now: Callable[[], float],
        on_change: Callable[[str], None] = lambda _backend: None,
    ) -> None:
        self.store = store
        self._on_capacity_change = on_change
        self.backends = BackendRecords(store, topic)
        self._topic = topic
        self._host = host
        self._now = now

    def volumes(self, backend: str = "") -> list[Volume]:
        """Return all volumes, or those of a backend, by name."""
        return self.store.read(lambda: self.select_volumes(backend))

    def volume(self, name: str) -> Volume:
        """Return a volume.

        Raises:
            VolumeNotFound: The volume was not found.
        """
        return self.store.read(lambda: self._load_volume(name))

    def snapshots(self, volume: str = "", backend: str = "") -> list[Snapshot]:
        """Return all snapshots, or those of a volume or a backend, by volume and name."""
        return self.store.read(lambda: self.select_snapshots(volume, backend))

    def snapshot(self, volume: str, name: str) -> Snapshot:
        """Return a snapshot.

        Raises:
            VolumeNotFound: The volume was not found.
            SnapshotNotFound: The snapshot was not found.
        """

        def find() -> Snapshot:
            self._row(volume)
            found = [one for one in self.select_snapshots(volume) if one.name == name]
            return found[0] if found else _raise_no_snapshot(volume, name)

        return self.store.read(find)

    def promised(self, backend: str) -> int:
        """Return the bytes that are promised to the volumes and snapshots of a backend."""
        return self.store.read(lambda: self.backends.promised(self._topic, backend))

    def promised_by_others(self, backend: str) -> int:
        """Return the unwritten promises of other backends on the file system of a backend."""
        return self.store.read(lambda: self.backends.promised_by_others(backend))

    def provisioned(self, backend: str) -> int:
        """Return the bytes of a backend's limit that are promised: on it, and by others on its file system."""
        return self.store.read(lambda: self._provisioned(backend))

    def add_volume(
        self,
        name: str,
        backend: str,
        size: int,
        origin: Origin,
        limit: int,
        *,
        created: float = 0.0,
        run: RunChange = run_directly,
    ) -> Volume:
        """Record a volume as `creating`; from here on its name and space are taken.

        Args:
            name: Its name.
            backend: Its backend.
            size: Its size in bytes.
            origin: The source of its content; a source that is copied must be `available`, and cannot change meanwhile.
            limit: The maximum of all promises of the backend in bytes.
            created: The time of its creation, by which an operation knows its volume again; 0 for now.
            run: Runs the change inside the write.

        Raises:
            AlreadyExists: A volume of that name exists.
            NoCapacity: The backend does not have enough space.
            VolumeNotFound: The source is gone.
            SnapshotNotFound: The snapshot is gone.
            WrongState: The state of the source forbids it.
        """

        def add() -> Volume:
            self._check_origin(origin)
            if self._rows().where(VolumeRow.name == name).exists():
                raise AlreadyExists(f"volume {name} already exists", hint="choose another name", name=name)
            self._check_room(name, backend, size, limit)
            VolumeRow.insert(
                topic=self._topic, name=name, backend=backend, size=size, promised=size, state=VolumeState.CREATING,
                since=self._now(), source=origin.label(), created=created or self._now(),
            ).execute()  # fmt: skip
            self.backends.update_records_mark(backend)
            return self._load_volume(name)

        return self._notify_changed(self.store.write(lambda: run(add)))

    def begin_transition(
        self, name: str, to: VolumeState, *, size: int = 0, limit: int = 0, run: RunChange = run_directly
    ) -> Volume:
        """Change the state of a volume for a request; return the volume as it was before.

        Args:
            name: The volume.
            to: The state while it is worked on.
            size: For `extending`, the new size.
            limit: For `extending`, the maximum of all promises of the backend in bytes.
            run: Runs the change inside the write.

        Raises:
            VolumeNotFound: The volume was not found.
            WrongState: Its state forbids it, or it is being copied.
            HasSnapshots: It has snapshots and cannot be deleted.
            BadSize: The new size is not larger.
            NoCapacity: The backend does not have enough space.
        """

        def begin() -> Volume:
            before = self._load_volume(name)
            self._check_free(before, to)
            if to is VolumeState.EXTENDING:
                check_grows(before, size)
                self._check_room(name, before.backend, size - before.promised, limit)
            self._set_state(name, to, promised=max(size, before.promised))
            return before

        before: Volume = self.store.write(lambda: run(begin))
        return self._notify_changed(before) if to is VolumeState.EXTENDING else before

    def begin_deleting(self, name: str, run: RunChange = run_directly) -> Volume:
        """Do what `begin_transition` does for `deleting`; on a full disk the state may be checked without changing it.

        Deletions must not need space. After a crash in between the file is missing, or still exists.

        Raises:
            VolumeNotFound: The volume was not found.
            WrongState: Its state forbids it, or it is being copied.
            HasSnapshots: It has snapshots.
        """

        def judge() -> Volume:
            before = self._load_volume(name)
            self._check_free(before, VolumeState.DELETING)
            return before

        try:
            return self._write_on_full_disk(lambda: self.begin_transition(name, VolumeState.DELETING, run=run))
        except StoreUnavailable as error:
            if not _is_disk_full(error):
                raise
            return self.store.read(judge)

    def _write_on_full_disk(self, write: Callable[[], T]) -> T:
        """Run a write of a deletion; on a full disk retry it with the reserved space."""
        try:
            return write()
        except StoreUnavailable as error:
            if not _is_disk_full(error):
                raise
        try:
            return write()  # the store releases some of the reserved space when it finds the disk full
        except StoreUnavailable as error:
            if not _is_disk_full(error) or not self.store.release_spare_room():
                raise
        return write()

    def end_transition(
        self,
        name: str,
        to: VolumeState,
        *,
        why: str = "",
        fault: str = "",
        size: int | None = None,
        device: str = "",
        run: RunChange = run_directly,
    ) -> Volume:
        """Change the state of a volume after an operation; return the volume as it is then.

        Args:
            name: The volume.
            to: Its state.
            why: The reason of the state.
            fault: For `error`, the kind of failure.
            size: Its new size, None if it did not change.
            device: For `in-use`, its block device.
            run: Runs the change inside the write.

        Raises:
            VolumeNotFound: The volume was not found.
            WrongState: The transition is not in the table.
        """

        def settle() -> Volume:
            sizes = {} if size is None else {"size": size, "promised": size}
            row = self._set_state(name, to, why=why, fault=fault, **sizes)
            AttachmentRow.delete().where(AttachmentRow.volume == row.id).execute()
            if device:
                AttachmentRow.insert(volume=row.id, device=device, attached_at=self._now()).execute()
            return self._load_volume(name)

        return self._notify_changed(self.store.write(lambda: run(settle)))

    def end_transitions(self, actions: Mapping[str, RepairAction]) -> None:
        """Change the states of volumes to match the files, all or none of them.

        Args:
            actions: Names of volumes to the corrections of their records.

        Raises:
            VolumeNotFound: One of the volumes was not found.
            WrongState: One of the transitions is not in the table.
        """
        for backend in self.store.write(lambda: self._end_transitions(actions), label="settle volumes"):
            self._notify_filesystem(backend)

    def delete_volume(self, name: str) -> None:
        """Remove the record of a volume; a missing one is not an error."""

        def remove() -> list[str]:
            rows = list(self._rows().where(VolumeRow.name == name))
            for row in rows:
                VolumeRow.delete().where(VolumeRow.id == row.id).execute()
                self.backends.record_freed(row.backend, row.promised)
                self.backends.update_records_mark(row.backend)
            return [row.backend for row in rows]

        for backend in self._write_on_full_disk(lambda: self.store.write(remove)):
            self._notify_filesystem(backend)

    def delete_with_snapshots(self, name: str) -> None:
        """Remove the records of a volume and its snapshots, whatever their states; missing ones are not an error."""

        def drop() -> None:
            for row in list(self._rows().where(VolumeRow.name == name)):
                SnapshotRow.delete().where(SnapshotRow.volume == row.id).execute()
                VolumeRow.delete().where(VolumeRow.id == row.id).execute()
                self.backends.update_records_mark(row.backend)

        self.store.write(drop)
        self._notify_filesystem("")

    def adopt(self, name: str, backend: str, size: int, snapshots: Mapping[str, int]) -> None:
        """Record an existing volume as `available`, with its snapshots and their sizes.

        Raises:
            AlreadyExists: A volume of that name exists.
        """

        def adopt() -> None:
            if self._rows().where(VolumeRow.name == name).exists():
                raise AlreadyExists(f"volume {name} already exists", name=name)
            times = {"since": self._now(), "created": self._now()}
            number = VolumeRow.insert(
                topic=self._topic, name=name, backend=backend, size=size, promised=size, state=VolumeState.AVAILABLE,
                **times,
            ).execute()  # fmt: skip
            for snapshot, length in snapshots.items():
                SnapshotRow.insert(
                    volume=number, name=snapshot, size=length, state=SnapshotState.AVAILABLE, **times
                ).execute()
            self.backends.update_records_mark(backend)

        self.store.write(adopt)
        self._notify_filesystem(backend)

    def move_backend(self, old: str, new: str) -> None:
        """Change the backend in the records of a backend."""

        def move() -> None:
            VolumeRow.update(backend=new).where(VolumeRow.topic == self._topic, VolumeRow.backend == old).execute()
            self.backends.delete_backend(old)
            self.backends.update_records_mark(new)

        self.store.write(move)
        self._notify_filesystem(new)

    def backends_used(self) -> dict[str, int]:
        """Return the backends in the records of volumes, with the number of volumes."""

        def find() -> dict[str, int]:
            count = peewee.fn.COUNT(VolumeRow.id)
            query = self._rows(VolumeRow.backend, count).group_by(VolumeRow.backend).order_by(VolumeRow.backend)
            return dict(query.tuples())

        return self.store.read(find)

    def first_names(self, backend: str, limit: int) -> list[str]:
        """Return the names of the first volumes of a backend."""

        def find() -> list[str]:
            query = self._rows(VolumeRow.name).where(VolumeRow.backend == backend).order_by(VolumeRow.name)
            return [row.name for row in query.limit(limit)]

        return self.store.read(find)

    def update_record_marks(self) -> None:
        """Store for the driver of each backend that volumes are recorded on it.

        Raises:
            StoreError: It cannot be written.
        """
        used = self.backends_used()
        missing = [each for each in used if not self.backends.has_records_mark(each)]
        if missing:

            def mark() -> None:
                for each in missing:
                    self.backends.update_records_mark(each)

            self.store.write(mark)

    def add_snapshot(
        self, volume: str, name: str, limit: int, *, created: float = 0.0, run: RunChange = run_directly
    ) -> Snapshot:
        """Record a snapshot as `creating`; its volume cannot change until it is completed.

        `created` and `run` are those of `add_volume`.

        Raises:
            VolumeNotFound: There is no such volume.
            WrongState: Its state forbids it.
            AlreadyExists: A snapshot of that name exists.
            NoCapacity: The backend does not have enough space.
        """

        def add() -> Snapshot:
            row = self._row(volume)
            _require_available(f"volume {volume}", row.state, "have a snapshot taken")
            if SnapshotRow.select().where(SnapshotRow.volume == row.id, SnapshotRow.name == name).exists():
                raise AlreadyExists(f"snapshot {volume}@{name} already exists", hint="choose another name", name=name)
            self._check_room(f"{volume}@{name}", row.backend, row.size, limit)
            SnapshotRow.insert(
                volume=row.id, name=name, size=row.size, state=SnapshotState.CREATING, since=self._now(),
                created=created or self._now(),
            ).execute()  # fmt: skip
            return self._load_snapshot(volume, name)

        return self._notify_changed(self.store.write(lambda: run(add)))

    def move_snapshot(
        self,
        volume: str,
        name: str,
        to: SnapshotState,
        *,
        why: str = "",
        fault: str = "",
        run: RunChange = run_directly,
    ) -> Snapshot:
        """Change the state of a snapshot; return the snapshot as it is then. `run` is that of `add_volume`.

        Raises:
            VolumeNotFound: The volume was not found.
            SnapshotNotFound: The snapshot was not found.
            WrongState: Its state forbids it, or it is being copied.
        """

        def move() -> Snapshot:
            self._check_snapshot_move(volume, name, to)
            SnapshotRow.update(state=to, why=why, fault=fault, since=self._now()).where(
                SnapshotRow.id == self._snapshot_id(volume, name)
            ).execute()
            return self._load_snapshot(volume, name)

        return self.store.write(lambda: run(move))

    def begin_deleting_snapshot(self, volume: str, name: str, run: RunChange = run_directly) -> Snapshot:
        """Change the state of a snapshot to `deleting`; on a full disk the state may be checked without changing it.

        Returns the snapshot as it was before. `run` is that of `add_volume`.

        Raises:
            VolumeNotFound: The volume was not found.
            SnapshotNotFound: The snapshot was not found.
            WrongState: Its state forbids it, or it is being copied.
        """

        def begin() -> Snapshot:
            before = judge()
            SnapshotRow.update(state=SnapshotState.DELETING, why="", fault="", since=self._now()).where(
                SnapshotRow.id == self._snapshot_id(volume, name)
            ).execute()
            return before

        def judge() -> Snapshot:
            self._check_snapshot_move(volume, name, SnapshotState.DELETING)
            return self._load_snapshot(volume, name)

        try:
            return self._write_on_full_disk(lambda: self.store.write(lambda: run(begin)))
        except StoreUnavailable as error:
            if not _is_disk_full(error):
                raise
            return self.store.read(judge)

    def delete_snapshot(self, volume: str, name: str) -> None:
        """Remove the record of a snapshot; a missing one is not an error."""

        def remove() -> list[str]:
            removed = list(self.select_snapshots(volume, name=name))
            for one in removed:
                SnapshotRow.delete().where(SnapshotRow.id == self._snapshot_id(volume, name)).execute()
                self.backends.record_freed(one.backend, one.size)
            return [one.backend for one in removed]

        for backend in self._write_on_full_disk(lambda: self.store.write(remove)):
            self._notify_filesystem(backend)

    def counts(self, backend: str) -> tuple[int, int]:
        """Return the number of volumes and snapshots of a backend."""

        def count() -> tuple[int, int]:
            volumes = self._rows().where(VolumeRow.backend == backend).count()
            snapshots = SnapshotRow.select().join(VolumeRow).where(
                VolumeRow.topic == self._topic, VolumeRow.backend == backend
            )  # fmt: skip
            return volumes, snapshots.count()

        return self.store.read(count)

    def _notify_filesystem(self, backend: str) -> None:
        """Report a change of the space of a backend, and of all others on its file system."""
        for each in self.backends.on_same_filesystem(backend):
            self._on_capacity_change(each)

    def _notify_changed(self, record: R) -> R:
        """Report a change of the promises of a backend."""
        self._notify_filesystem(record.backend)
        return record

    def problems(self) -> list[str]:
        """Return the number of volumes and of snapshots in error, a line each, with the reasons of the first ones."""
        return self.store.read(self._problems)

    # All methods below run inside a read or a write.

    def _problems(self) -> list[str]:
        volumes: Any = self._rows(VolumeRow.name, VolumeRow.why, VolumeRow.since).where(
            VolumeRow.state == VolumeState.ERROR
        )
        snapshots: Any = (
            SnapshotRow.select(
                VolumeRow.name.concat("@").concat(SnapshotRow.name).alias("name"), SnapshotRow.why, SnapshotRow.since
            )
            .join(VolumeRow)
            .where(VolumeRow.topic == self._topic, SnapshotRow.state == SnapshotState.ERROR)
        )
        rows = (("volume", VolumeRow.since, volumes), ("snapshot", SnapshotRow.since, snapshots))
        lines = [
            _error_problem(kind, query.count(), query.order_by(since).limit(_MAX_SHOWN_NAMES).dicts())
            for kind, since, query in rows
        ]
        return [line for line in lines if line]

    def select_volumes(self, backend: str = "", name: str = "") -> list[Volume]:
        """Return the result of `volumes`; inside a read or write of the store."""
        device = AttachmentRow.select(AttachmentRow.device).where(AttachmentRow.volume == VolumeRow.id)
        count = SnapshotRow.select(peewee.fn.COUNT(SnapshotRow.id)).where(SnapshotRow.volume == VolumeRow.id)
        query = self._rows(
            VolumeRow.name, VolumeRow.backend, VolumeRow.size, VolumeRow.promised, VolumeRow.state, VolumeRow.why,
            VolumeRow.since, VolumeRow.fault, VolumeRow.source, VolumeRow.created,
            peewee.fn.COALESCE(device, "").alias("device"), count.alias("snapshots"),
        )  # fmt: skip
        if backend:
            query = query.where(VolumeRow.backend == backend)
        if name:
            query = query.where(VolumeRow.name == name)
        return [Volume(host=self._host, **row) for row in query.order_by(VolumeRow.name).dicts()]

    def select_snapshots(self, volume: str = "", backend: str = "", name: str = "") -> list[Snapshot]:
        """Return the result of `snapshots`; inside a read or write of the store."""
        query: Any = (
            SnapshotRow.select(
                VolumeRow.name.alias("volume"), SnapshotRow.name, SnapshotRow.size, SnapshotRow.state,
                VolumeRow.backend, SnapshotRow.why, SnapshotRow.since, SnapshotRow.fault, SnapshotRow.created,
            )
            .join(VolumeRow)
            .where(VolumeRow.topic == self._topic)
            .order_by(VolumeRow.name, SnapshotRow.name)
        )  # fmt: skip
        wanted = ((VolumeRow.name, volume), (VolumeRow.backend, backend), (SnapshotRow.name, name))
        for column, value in wanted:
            if value:
                query = query.where(column == value)
        return [Snapshot(**row, host=self._host) for row in query.dicts()]

    def _rows(self, *columns: Any) -> Any:
        return VolumeRow.select(*columns).where(VolumeRow.topic == self._topic)

    def _row(self, name: str) -> VolumeRow:
        row = self._rows().where(VolumeRow.name == name).first()
        if row is None:
            raise VolumeNotFound(f"volume {name} not found", hint="`ostler volume list` shows all volumes", name=name)
        return row  # type: ignore[no-any-return]  # peewee has no annotations

    def _load_volume(self, name: str) -> Volume:
        self._row(name)
        return self.select_volumes(name=name)[0]

    def _load_snapshot(self, volume: str, name: str) -> Snapshot:
        self._row(volume)
        found = self.select_snapshots(volume, name=name)
        return found[0] if found else _raise_no_snapshot(volume, name)

    def _snapshot_id(self, volume: str, name: str) -> int:
        row = (
            SnapshotRow.select(SnapshotRow.id)
            .join(VolumeRow)
            .where(VolumeRow.topic == self._topic, VolumeRow.name == volume, SnapshotRow.name == name)
            .first()
        )
        return int(row.id) if row else -1

    def _set_state(self, name: str, to: VolumeState, **changes: object) -> VolumeRow:
        row = self._row(name)
        if to not in VOLUME_TRANSITIONS[VolumeState(row.state)]:
            raise _wrong_state_error(f"volume {name}", row.state, to)
        fields = {"why": "", "fault": "", **changes, "state": to, "since": self._now()}
        VolumeRow.update(**fields).where(VolumeRow.id == row.id).execute()
        return row

    def _end_transitions(self, actions: Mapping[str, RepairAction]) -> set[str]:
        rows = {row.name: row for row in self._rows().where(VolumeRow.name.in_(list(actions)))}
        alike: defaultdict[RepairAction, list[int]] = defaultdict(list)
        for name, judgement in actions.items():
            row = rows.get(name) or self._row(name)  # which raises
            if judgement.state not in VOLUME_TRANSITIONS[VolumeState(row.state)]:
                raise _wrong_state_error(f"volume {name}", row.state, judgement.state)
            alike[judgement._replace(device="")].append(row.id)
        for each, ids in alike.items():
            sizes = {} if each.size is None else {"size": each.size, "promised": each.size}
            fields = {"state": each.state, "why": each.why, "fault": each.fault, "since": self._now(), **sizes}
            VolumeRow.update(**fields).where(VolumeRow.id.in_(ids)).execute()
        AttachmentRow.delete().where(AttachmentRow.volume.in_([rows[name].id for name in actions])).execute()
        for name, judgement in actions.items():
            if judgement.device:
                AttachmentRow.insert(volume=rows[name].id, device=judgement.device, attached_at=self._now()).execute()
        return {row.backend for row in rows.values()}

    def _check_free(self, volume: Volume, to: VolumeState) -> None:
        state = VolumeState(volume.state)
        # Requests can only delete a volume in error; its other transitions are repairs.
        if to not in VOLUME_TRANSITIONS[state]:
            raise _wrong_state_error(f"volume {volume.name}", state, to)
        what = f"volume {volume.name}"
        self._check_no_copies(what, f"volume:{volume.name}")
        kept = [one.name for one in self.select_snapshots(volume.name) if one.state == SnapshotState.CREATING]
        if kept:
            raise WrongState(
                f"{what} is being copied to snapshot {kept[0]}", hint="wait until this has finished", state=volume.state
            )
        if to is VolumeState.DELETING and volume.snapshots:
            raise HasSnapshots(
                f"{what} has {volume.snapshots} snapshot{'s' * (volume.snapshots > 1)}, so it cannot be deleted",
                hint=f"delete the snapshots first; `ostler volume snapshot list {volume.name}` shows them",
                name=volume.name,
            )

    def _check_snapshot_move(self, volume: str, name: str, to: SnapshotState) -> None:
        state = SnapshotState(self._load_snapshot(volume, name).state)
        if to not in SNAPSHOT_TRANSITIONS[state]:
            raise _wrong_state_error(f"snapshot {volume}@{name}", state, to)
        if to is SnapshotState.DELETING:
            self._check_no_copies(f"snapshot {volume}@{name}", f"snapshot:{volume}@{name}")

    def _check_no_copies(self, what: str, source: str) -> None:
        copies = self._rows(VolumeRow.name).where(VolumeRow.source == source, VolumeRow.state == VolumeState.CREATING)
        names = [row.name for row in copies]
        if names:
            raise WrongState(f"{what} is being copied to {', '.join(names)}", hint="wait until this has finished")

    def _check_origin(self, origin: Origin) -> None:
        if origin.source:
            _require_available(f"volume {origin.source}", self._row(origin.source).state, "be copied")
        elif origin.snapshot:
            found = self._load_snapshot(*split_snapshot_name(origin.snapshot))
            _require_available(f"snapshot {origin.snapshot}", found.state, "be copied")

    def _check_room(self, name: str, backend: str, size: int, limit: int) -> None:
        claims = self.backends.promised_by_others(backend)
        left = limit - self.backends.promised(self._topic, backend) - claims
        if size > left:
            beside = f"; {format_size(claims)} promised on other backends of its file system" if claims else ""
            raise NoCapacity(
                f"backend {backend} has no space for {format_size(size)} more for {name}{beside}",
                hint=capacity_hint(left),
                backend=backend,
                size=size,
                left=max(0, left),
            )

    def _provisioned(self, backend: str) -> int:
        return self.backends.promised(self._topic, backend) + self.backends.promised_by_others(backend)


def check_grows(volume: Volume, size: int) -> None:
    """Raise `BadSize` if a volume would not become larger."""
    if size <= volume.size:
        raise BadSize(
            f"volume {volume.name} has {format_size(volume.size)}, and the new size {format_size(size)} is not larger",
            hint="a volume can only be extended",
            size=size,
        )


def _is_disk_full(error: StoreUnavailable) -> bool:
    return error.reason.startswith("SQLITE_FULL")


def _require_available(what: str, state: str, verb: str) -> None:
    if state != VolumeState.AVAILABLE:
        raise WrongState(f"{what} is {state}, so it cannot {verb}", hint=_state_hint(what, state), state=state)


def _wrong_state_error(what: str, state: str, to: str) -> WrongState:
    verb = STATE_VERBS.get(to, f"become {to}")
    cannot = f"cannot be {verb}" if to in STATE_VERBS else f"cannot {verb}"
    return WrongState(f"{what} is {state}, so it {cannot}", hint=_state_hint(what, state), state=str(state))


def _state_hint(what: str, state: str) -> str:
    return STATE_HINTS.get(state, "").format(name=what.partition(" ")[2])


def _raise_no_snapshot(volume: str, name: str) -> Snapshot:
    raise SnapshotNotFound(
        f"snapshot {volume}@{name} not found", hint=f"see `ostler volume snapshot list {volume}`", name=name
    )


def _error_problem(kind: str, count: int, first: Iterable[dict[str, Any]]) -> str:
    """Return a sentence on records in error, empty for none: the number, and the first ones with time and reason."""
    if not count:
        return ""
    named = "; ".join(
        f"{row['name']} since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(row['since']))}: {row['why'][:200]}"
        for row in first
    )
    rest = f"; and {count - _MAX_SHOWN_NAMES} more" if count > _MAX_SHOWN_NAMES else ""
    return f"{count} {kind}{'s are' if count > 1 else ' is'} in error: {named}{rest}"
