"""The records of volumes and snapshots: the one place that reads and writes their tables.

Every change is one `store.write`, in which the state is compared with the table of moves and set. The writer is one
thread, so of two requests that race for a name or a volume one finds the other's state and is refused.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import peewee

from ostler import NoCapacity, Store, StoreUnavailable, format_size
from ostler_volume.backend_records import BackendRecords
from ostler_volume.door import Origin, split_snapshot
from ostler_volume.errors import AlreadyExists, BadSize, HasSnapshots, SnapshotNotFound, VolumeNotFound, WrongState
from ostler_volume.folder import room_hint
from ostler_volume.repair import Judgement
from ostler_volume.states import HINTS, SNAPSHOT_MOVES, VERBS, VOLUME_MOVES, SnapshotState, VolumeState
from ostler_volume.tables import AttachmentRow, SnapshotRow, VolumeRow
from ostler_volume.wire import Snapshot, Volume

T = TypeVar("T")
R = TypeVar("R", Volume, Snapshot)
_SHOWN = 5
"""Volumes in error that are named in the status."""


class Records:
    """The records of one service. Every method blocks; any thread but the loop's.

    Args:
        store: The daemon's store.
        topic: The service's topic; two services of this manager do not see each other's volumes.
        host: The host, as it stands in what goes over the wire.
        now: Returns the wall time.
        on_change: Told the backend after each change of what is promised on it, or of what lies there.
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
        self._tell = on_change
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
            VolumeNotFound: There is none of that name.
        """
        return self.store.read(lambda: self._one(name))

    def snapshots(self, volume: str = "", backend: str = "") -> list[Snapshot]:
        """Return all snapshots, or those of a volume or a backend, by volume and name."""
        return self.store.read(lambda: self.select_snapshots(volume, backend))

    def snapshot(self, volume: str, name: str) -> Snapshot:
        """Return a snapshot.

        Raises:
            VolumeNotFound: There is no such volume.
            SnapshotNotFound: It has no snapshot of that name.
        """

        def find() -> Snapshot:
            self._row(volume)
            found = [one for one in self.select_snapshots(volume) if one.name == name]
            return found[0] if found else _no_snapshot(volume, name)

        return self.store.read(find)

    def promised(self, backend: str) -> int:
        """Return the bytes that are promised to the volumes and snapshots of a backend."""
        return self.store.read(lambda: self.backends.promised(self._topic, backend))

    def claims(self, backend: str) -> int:
        """Return what others have promised and not yet written on the file system of a backend."""
        return self.store.read(lambda: self.backends.claims(backend))

    def provisioned(self, backend: str) -> int:
        """Return the bytes of the limit of a backend that are given away: on it, and by others on its file system."""
        return self.store.read(lambda: self._provisioned(backend))

    def add_volume(self, name: str, backend: str, size: int, origin: Origin, limit: int) -> Volume:
        """Write a volume down as `creating`; from here on its name and room are taken.

        Args:
            name: Its name.
            backend: Its backend.
            size: Its size in bytes.
            origin: Where its content comes from; what is copied must be `available`, and cannot change meanwhile.
            limit: How many bytes the backend may promise in all.

        Raises:
            AlreadyExists: There is one of that name.
            NoCapacity: The backend has not enough room.
            VolumeNotFound: The source is gone.
            SnapshotNotFound: The snapshot is gone.
            WrongState: What is to be copied is in a state that forbids it.
        """

        def add() -> Volume:
            self._check_origin(origin)
            if self._rows().where(VolumeRow.name == name).exists():
                raise AlreadyExists(f"there is a volume {name} already", hint="take another name", name=name)
            self._check_room(name, backend, size, limit)
            VolumeRow.insert(
                topic=self._topic, name=name, backend=backend, size=size, promised=size, state=VolumeState.CREATING,
                since=self._now(), source=origin.label(), created=self._now(),
            ).execute()  # fmt: skip
            self.backends.mark(backend)
            return self._one(name)

        return self._changed(self.store.write(add))

    def begin(self, name: str, to: VolumeState, *, size: int = 0, limit: int = 0) -> Volume:
        """Move a volume on because a request wants it; return it as it was before.

        Args:
            name: The volume.
            to: The state while it is worked on.
            size: For `extending`, the new size.
            limit: For `extending`, how many bytes the backend may promise in all.

        Raises:
            VolumeNotFound: There is none of that name.
            WrongState: Its state forbids it, or it is being copied.
            HasSnapshots: It is to be deleted and has snapshots.
            BadSize: It is to be extended and would not grow.
            NoCapacity: The backend has not enough room.
        """

        def begin() -> Volume:
            before = self._one(name)
            self._check_free(before, to)
            if to is VolumeState.EXTENDING:
                check_grows(before, size)
                self._check_room(name, before.backend, size - before.promised, limit)
            self._move(name, to, promised=max(size, before.promised))
            return before

        before: Volume = self.store.write(begin)
        return self._changed(before) if to is VolumeState.EXTENDING else before

    def begin_deleting(self, name: str) -> Volume:
        """Do what `begin` does for `deleting`; on a full disk the state may be judged and not changed.

        What gives room back must not need room. After a crash in the middle the file is missing, or still there.

        Raises:
            VolumeNotFound: There is none of that name.
            WrongState: Its state forbids it, or it is being copied.
            HasSnapshots: It has snapshots.
        """

        def judge() -> Volume:
            before = self._one(name)
            self._check_free(before, VolumeState.DELETING)
            return before

        try:
            return self._freeing(lambda: self.begin(name, VolumeState.DELETING))
        except StoreUnavailable as error:
            if not _is_full(error):
                raise
            return self.store.read(judge)

    def _freeing(self, write: Callable[[], T]) -> T:
        """Run a write that room is given back with; on a full disk once more, with room that is kept for that."""
        try:
            return write()
        except StoreUnavailable as error:
            if not _is_full(error):
                raise
        try:
            return write()  # the store gives some of that room when it finds the disk full
        except StoreUnavailable as error:
            if not _is_full(error) or not self.store.release_spare_room():
                raise
        return write()

    def settle(
        self, name: str, to: VolumeState, *, why: str = "", fault: str = "", size: int | None = None, device: str = ""
    ) -> Volume:
        """Move a volume on because of what became of it; return it as it is then.

        Args:
            name: The volume.
            to: Its state.
            why: More about the state.
            fault: For `error`, what failed.
            size: What its size is now, None when that did not change.
            device: For `in-use`, where it is attached.

        Raises:
            VolumeNotFound: There is none of that name.
            WrongState: The move is not one of the table.
        """

        def settle() -> Volume:
            sizes = {} if size is None else {"size": size, "promised": size}
            row = self._move(name, to, why=why, fault=fault, **sizes)
            AttachmentRow.delete().where(AttachmentRow.volume == row.id).execute()
            if device:
                AttachmentRow.insert(volume=row.id, device=device, attached_at=self._now()).execute()
            return self._one(name)

        return self._changed(self.store.write(settle))

    def settle_all(self, wanted: Mapping[str, Judgement]) -> None:
        """Move volumes on because of what is really there, all or none of them.

        Args:
            wanted: The names of volumes to what their records should say.

        Raises:
            VolumeNotFound: There is none of one of those names.
            WrongState: One of the moves is not one of the table.
        """
        for backend in self.store.write(lambda: self._settle_all(wanted), label="settle volumes"):
            self._on_change(backend)

    def remove(self, name: str) -> None:
        """Forget a volume; that there is none is no error."""

        def remove() -> list[str]:
            rows = list(self._rows().where(VolumeRow.name == name))
            for row in rows:
                VolumeRow.delete().where(VolumeRow.id == row.id).execute()
                self.backends.freed(row.backend, row.promised)
                self.backends.mark(row.backend)
            return [row.backend for row in rows]

        for backend in self._freeing(lambda: self.store.write(remove)):
            self._on_change(backend)

    def drop(self, name: str) -> None:
        """Forget a volume and its snapshots, whatever their states; that there is none is no error."""

        def drop() -> None:
            for row in list(self._rows().where(VolumeRow.name == name)):
                SnapshotRow.delete().where(SnapshotRow.volume == row.id).execute()
                VolumeRow.delete().where(VolumeRow.id == row.id).execute()
                self.backends.mark(row.backend)

        self.store.write(drop)
        self._on_change("")

    def adopt(self, name: str, backend: str, size: int, snapshots: Mapping[str, int]) -> None:
        """Write down as `available` a volume that is there already, and its snapshots with their sizes.

        Raises:
            AlreadyExists: There is one of that name.
        """

        def adopt() -> None:
            if self._rows().where(VolumeRow.name == name).exists():
                raise AlreadyExists(f"there is a volume {name} already", name=name)
            times = {"since": self._now(), "created": self._now()}
            number = VolumeRow.insert(
                topic=self._topic, name=name, backend=backend, size=size, promised=size, state=VolumeState.AVAILABLE,
                **times,
            ).execute()  # fmt: skip
            for snapshot, length in snapshots.items():
                SnapshotRow.insert(
                    volume=number, name=snapshot, size=length, state=SnapshotState.AVAILABLE, **times
                ).execute()
            self.backends.mark(backend)

        self.store.write(adopt)
        self._on_change(backend)

    def move_backend(self, old: str, new: str) -> None:
        """Have the records of a backend name another one."""

        def move() -> None:
            VolumeRow.update(backend=new).where(VolumeRow.topic == self._topic, VolumeRow.backend == old).execute()
            self.backends.retire(old)
            self.backends.mark(new)

        self.store.write(move)
        self._on_change(new)

    def backends_used(self) -> dict[str, int]:
        """Return the backends that volumes are recorded on, and how many."""

        def find() -> dict[str, int]:
            count = peewee.fn.COUNT(VolumeRow.id)
            query = self._rows(VolumeRow.backend, count).group_by(VolumeRow.backend).order_by(VolumeRow.backend)
            return dict(query.tuples())

        return self.store.read(find)

    def first_names(self, backend: str, most: int) -> list[str]:
        """Return the names of the first volumes of a backend."""

        def find() -> list[str]:
            query = self._rows(VolumeRow.name).where(VolumeRow.backend == backend).order_by(VolumeRow.name)
            return [row.name for row in query.limit(most)]

        return self.store.read(find)

    def mark_backends(self) -> None:
        """Have the driver of each backend know that volumes are recorded on it.

        Raises:
            StoreError: It cannot be written.
        """
        used = self.backends_used()
        missing = [each for each in used if not self.backends.is_marked(each)]
        if missing:

            def mark() -> None:
                for each in missing:
                    self.backends.mark(each)

            self.store.write(mark)

    def add_snapshot(self, volume: str, name: str, limit: int) -> Snapshot:
        """Write a snapshot down as `creating`; its volume may not change until it is done.

        Raises:
            VolumeNotFound: There is no such volume.
            WrongState: Its state forbids it.
            AlreadyExists: It has a snapshot of that name.
            NoCapacity: The backend has not enough room.
        """

        def add() -> Snapshot:
            row = self._row(volume)
            _require_available(f"volume {volume}", row.state, "have its content kept")
            if SnapshotRow.select().where(SnapshotRow.volume == row.id, SnapshotRow.name == name).exists():
                raise AlreadyExists(f"{volume} has a snapshot {name} already", hint="take another name", name=name)
            self._check_room(f"{volume}@{name}", row.backend, row.size, limit)
            SnapshotRow.insert(
                volume=row.id, name=name, size=row.size, state=SnapshotState.CREATING, since=self._now(),
                created=self._now(),
            ).execute()  # fmt: skip
            return self._one_snapshot(volume, name)

        return self._changed(self.store.write(add))

    def move_snapshot(self, volume: str, name: str, to: SnapshotState, *, why: str = "", fault: str = "") -> Snapshot:
        """Move a snapshot on; return it as it is then.

        Raises:
            VolumeNotFound: There is no such volume.
            SnapshotNotFound: It has no snapshot of that name.
            WrongState: Its state forbids it, or it is being copied.
        """

        def move() -> Snapshot:
            self._check_snapshot_move(volume, name, to)
            SnapshotRow.update(state=to, why=why, fault=fault, since=self._now()).where(
                SnapshotRow.id == self._snapshot_id(volume, name)
            ).execute()
            return self._one_snapshot(volume, name)

        return self.store.write(move)

    def begin_deleting_snapshot(self, volume: str, name: str) -> None:
        """Move a snapshot on to `deleting`; on a full disk the state may be judged and not changed.

        Raises:
            VolumeNotFound: There is no such volume.
            SnapshotNotFound: It has no snapshot of that name.
            WrongState: Its state forbids it, or it is being copied.
        """
        try:
            self._freeing(lambda: self.move_snapshot(volume, name, SnapshotState.DELETING))
        except StoreUnavailable as error:
            if not _is_full(error):
                raise
            self.store.read(lambda: self._check_snapshot_move(volume, name, SnapshotState.DELETING))

    def remove_snapshot(self, volume: str, name: str) -> None:
        """Forget a snapshot; that there is none is no error."""

        def remove() -> list[str]:
            removed = list(self.select_snapshots(volume, name=name))
            for one in removed:
                SnapshotRow.delete().where(SnapshotRow.id == self._snapshot_id(volume, name)).execute()
                self.backends.freed(one.backend, one.size)
            return [one.backend for one in removed]

        for backend in self._freeing(lambda: self.store.write(remove)):
            self._on_change(backend)

    def counts(self, backend: str) -> tuple[int, int]:
        """Return how many volumes and snapshots a backend has."""

        def count() -> tuple[int, int]:
            volumes = self._rows().where(VolumeRow.backend == backend).count()
            snapshots = SnapshotRow.select().join(VolumeRow).where(
                VolumeRow.topic == self._topic, VolumeRow.backend == backend
            )  # fmt: skip
            return volumes, snapshots.count()

        return self.store.read(count)

    def _on_change(self, backend: str) -> None:
        """Tell that the room of a backend has changed, and with it that of all on its file system."""
        for each in self.backends.sharing(backend):
            self._tell(each)

    def _changed(self, record: R) -> R:
        """Tell that the room which is promised on a backend has changed."""
        self._on_change(record.backend)
        return record

    def problems(self) -> list[str]:
        """Return how many volumes and snapshots are in error, a line each, with the reasons of the first few."""
        return self.store.read(self._problems)

    # From here on everything runs inside a read or a write.

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
            _in_error(kind, query.count(), query.order_by(since).limit(_SHOWN).dicts()) for kind, since, query in rows
        ]
        return [line for line in lines if line]

    def select_volumes(self, backend: str = "", name: str = "") -> list[Volume]:
        """Return what `volumes` returns; inside a read or write of the store."""
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
        """Return what `snapshots` returns; inside a read or write of the store."""
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
            raise VolumeNotFound(f"there is no volume {name}", hint="`ostler volume list` shows them", name=name)
        return row  # type: ignore[no-any-return]  # peewee has no annotations

    def _one(self, name: str) -> Volume:
        self._row(name)
        return self.select_volumes(name=name)[0]

    def _one_snapshot(self, volume: str, name: str) -> Snapshot:
        self._row(volume)
        found = self.select_snapshots(volume, name=name)
        return found[0] if found else _no_snapshot(volume, name)

    def _snapshot_id(self, volume: str, name: str) -> int:
        row = (
            SnapshotRow.select(SnapshotRow.id)
            .join(VolumeRow)
            .where(VolumeRow.topic == self._topic, VolumeRow.name == volume, SnapshotRow.name == name)
            .first()
        )
        return int(row.id) if row else -1

    def _move(self, name: str, to: VolumeState, **changes: object) -> VolumeRow:
        row = self._row(name)
        if to not in VOLUME_MOVES[VolumeState(row.state)]:
            raise _refused(f"volume {name}", row.state, to)
        fields = {"why": "", "fault": "", **changes, "state": to, "since": self._now()}
        VolumeRow.update(**fields).where(VolumeRow.id == row.id).execute()
        return row

    def _settle_all(self, wanted: Mapping[str, Judgement]) -> set[str]:
        rows = {row.name: row for row in self._rows().where(VolumeRow.name.in_(list(wanted)))}
        alike: defaultdict[Judgement, list[int]] = defaultdict(list)
        for name, judgement in wanted.items():
            row = rows.get(name) or self._row(name)  # which raises
            if judgement.state not in VOLUME_MOVES[VolumeState(row.state)]:
                raise _refused(f"volume {name}", row.state, judgement.state)
            alike[judgement._replace(device="")].append(row.id)
        for each, ids in alike.items():
            sizes = {} if each.size is None else {"size": each.size, "promised": each.size}
            fields = {"state": each.state, "why": each.why, "fault": each.fault, "since": self._now(), **sizes}
            VolumeRow.update(**fields).where(VolumeRow.id.in_(ids)).execute()
        AttachmentRow.delete().where(AttachmentRow.volume.in_([rows[name].id for name in wanted])).execute()
        for name, judgement in wanted.items():
            if judgement.device:
                AttachmentRow.insert(volume=rows[name].id, device=judgement.device, attached_at=self._now()).execute()
        return {row.backend for row in rows.values()}

    def _check_free(self, volume: Volume, to: VolumeState) -> None:
        state = VolumeState(volume.state)
        # Of a volume in error only what can be cleared away may be asked for; the rest of its moves are repairs.
        if to not in VOLUME_MOVES[state]:
            raise _refused(f"volume {volume.name}", state, to)
        what = f"volume {volume.name}"
        self._check_no_copies(what, f"volume:{volume.name}")
        kept = [one.name for one in self.select_snapshots(volume.name) if one.state == SnapshotState.CREATING]
        if kept:
            raise WrongState(
                f"{what} is being kept as snapshot {kept[0]}", hint="wait until that is done", state=volume.state
            )
        if to is VolumeState.DELETING and volume.snapshots:
            raise HasSnapshots(
                f"{what} has {volume.snapshots} snapshot{'s' * (volume.snapshots > 1)}, so it cannot be deleted",
                hint=f"delete them first: `ostler volume snapshot list {volume.name}` shows them",
                name=volume.name,
            )

    def _check_snapshot_move(self, volume: str, name: str, to: SnapshotState) -> None:
        state = SnapshotState(self._one_snapshot(volume, name).state)
        if to not in SNAPSHOT_MOVES[state]:
            raise _refused(f"snapshot {volume}@{name}", state, to)
        if to is SnapshotState.DELETING:
            self._check_no_copies(f"snapshot {volume}@{name}", f"snapshot:{volume}@{name}")

    def _check_no_copies(self, what: str, source: str) -> None:
        copies = self._rows(VolumeRow.name).where(VolumeRow.source == source, VolumeRow.state == VolumeState.CREATING)
        names = [row.name for row in copies]
        if names:
            raise WrongState(f"{what} is being copied to {', '.join(names)}", hint="wait until that is done")

    def _check_origin(self, origin: Origin) -> None:
        if origin.source:
            _require_available(f"volume {origin.source}", self._row(origin.source).state, "be copied")
        elif origin.snapshot:
            found = self._one_snapshot(*split_snapshot(origin.snapshot))
            _require_available(f"snapshot {origin.snapshot}", found.state, "be copied")

    def _check_room(self, name: str, backend: str, size: int, limit: int) -> None:
        claims = self.backends.claims(backend)
        left = limit - self.backends.promised(self._topic, backend) - claims
        if size > left:
            beside = f"; {format_size(claims)} are promised on other backends of its file system" if claims else ""
            raise NoCapacity(
                f"{backend} has no room for {format_size(size)} more for {name}{beside}",
                hint=room_hint(left),
                backend=backend,
                size=size,
                left=max(0, left),
            )

    def _provisioned(self, backend: str) -> int:
        return self.backends.promised(self._topic, backend) + self.backends.claims(backend)


def check_grows(volume: Volume, size: int) -> None:
    """Raise `BadSize` when a volume would not become larger."""
    if size <= volume.size:
        raise BadSize(
            f"volume {volume.name} has {format_size(volume.size)} already, and {format_size(size)} is not more",
            hint="a volume can only be extended",
            size=size,
        )


def _is_full(error: StoreUnavailable) -> bool:
    return str(error.facts.get("reason", "")).startswith("SQLITE_FULL")


def _require_available(what: str, state: str, verb: str) -> None:
    if state != VolumeState.AVAILABLE:
        raise WrongState(f"{what} is {state}, so it cannot {verb}", hint=_hint(what, state), state=state)


def _refused(what: str, state: str, to: str) -> WrongState:
    verb = VERBS.get(to, f"become {to}")
    cannot = f"cannot be {verb}" if to in VERBS else f"cannot {verb}"
    return WrongState(f"{what} is {state}, so it {cannot}", hint=_hint(what, state), state=str(state))


def _hint(what: str, state: str) -> str:
    return HINTS.get(state, "").format(name=what.partition(" ")[2])


def _no_snapshot(volume: str, name: str) -> Snapshot:
    raise SnapshotNotFound(
        f"volume {volume} has no snapshot {name}", hint=f"`ostler volume snapshot list {volume}` shows them", name=name
    )


def _in_error(kind: str, count: int, first: Iterable[dict[str, Any]]) -> str:
    """Return a sentence on what is in error, empty for nothing: how many, and the first few with since when and why."""
    if not count:
        return ""
    named = "; ".join(
        f"{row['name']} since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(row['since']))}: {row['why'][:200]}"
        for row in first
    )
    rest = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
    return f"{count} {kind}{'s are' if count > 1 else ' is'} in error: {named}{rest}"
