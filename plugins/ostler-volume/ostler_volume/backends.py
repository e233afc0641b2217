"""What an operator does about backends and records: take over a file, drop a record, follow a renamed backend."""

from __future__ import annotations

import msgspec

from ostler import Conflict, Context, DriverState, InvalidInput
from ostler_volume.door import name_of, split_snapshot
from ostler_volume.driver import Inventory
from ostler_volume.errors import AlreadyExists, VolumeNotFound, WrongState
from ostler_volume.identity import identity_from
from ostler_volume.reconcile import Reconciler
from ostler_volume.states import VolumeState
from ostler_volume.wire import Snapshot, Volume
from ostler_volume.workshop import Workshop

BACKEND = "backend"
"""The fault of a volume whose backend is not in the configuration."""
_SHOWN = 5
_SETTLED = frozenset({VolumeState.AVAILABLE, VolumeState.ERROR})


class BackendWork:
    """Brings records and backends together again. Everything blocks.

    Args:
        workshop: Records, drivers and claims.
        reconciler: What makes records and files agree afterwards.
    """

    def __init__(self, workshop: Workshop, reconciler: Reconciler) -> None:
        self._shop = workshop
        self._reconciler = reconciler

    def manage(self, ctx: Context, name: str, backend: str = "") -> Volume:
        """Take over a file without a record, with its snapshots; see `VolumeManager.manage_volume`."""
        volume = name_of(name)
        with self._shop.claims.hold(ctx, volume):
            backend, inventory = self._found(volume, backend)
            found = inventory.volumes[volume]
            snapshots = {key: one.size for key, one in inventory.snapshots.items() if key.startswith(f"{volume}@")}
            names = {split_snapshot(key)[1]: size for key, size in snapshots.items()}
            self._shop.records.adopt(volume, backend, found.size, names)
            device = inventory.devices.get(volume, "")
            if device:
                self._shop.records.settle(volume, VolumeState.IN_USE, device=device)
            self._forget_unknown(backend, {volume, *snapshots})
        self._shop.log.info("volume %s on %s is managed now", volume, backend)
        self._shop.tell("managed", {"name": volume, "backend": backend, "size": found.size})
        return self._shop.records.volume(volume)

    def _found(self, name: str, backend: str) -> tuple[str, Inventory]:
        chosen = [backend] if backend else self._shop.drivers.ready()
        found = {each: seen for each in chosen if name in (seen := self._shop.backend(each).inventory()).volumes}
        try:
            there = self._shop.records.volume(name)
        except VolumeNotFound:
            pass
        else:
            raise AlreadyExists(f"volume {name} is managed already, on {there.backend}", name=name)
        if not found:
            where = f"on backend {backend}" if backend else "on any backend that is ready"
            raise VolumeNotFound(
                f"there is no file {name} without a record {where}", hint="`ostler status` names them", name=name
            )
        if len(found) > 1:
            raise InvalidInput(f"{name} is on {' and '.join(found)}", hint="say which with --backend")
        return next(iter(found.items()))

    def _forget_unknown(self, backend: str, keys: set[str]) -> None:
        unknown = self._shop.unknown.get(backend, {})
        self._shop.unknown[backend] = {key: size for key, size in unknown.items() if key not in keys}

    def forget(self, ctx: Context, name: str) -> None:
        """Drop the records of a volume and its snapshots; see `VolumeManager.forget_volume`."""
        name = name_of(name)
        with self._shop.claims.hold(ctx, name):
            volume = self._shop.records.volume(name)
            ready = volume.backend in self._shop.drivers.ready()
            if ready and volume.state not in _SETTLED:
                hint = f"detach it first: `ostler volume detach {name}`" if volume.device else "wait until that is done"
                raise WrongState(
                    f"volume {name} is {volume.state}, so its record cannot be dropped", hint=hint, state=volume.state
                )
            self._shop.records.drop(name)
        if ready:
            self._reconciler.backend(volume.backend)
        self._shop.log.warning("the record of volume %s on %s is dropped; its file is left", name, volume.backend)
        self._shop.tell("forgotten", {"name": name, "backend": volume.backend})

    def move(self, old: str, new: str, *, force: bool = False) -> int:
        """Have the records of a backend follow it to another name; see `VolumeManager.move_backend`."""
        records = self._shop.records
        volumes, snapshots = records.volumes(old), records.snapshots(backend=old)
        if not volumes:
            raise InvalidInput(f"no volume is recorded on the backend {old}", hint="`ostler volume list` shows them")
        if old == new:
            raise InvalidInput(f"{old} is the backend of these volumes already")
        if old in self._shop.drivers.ready():
            raise Conflict(f"the backend {old} is ready, so its records stay with it", hint="copy the volumes instead")
        inventory = self._shop.backend(new).inventory()
        missing = _missing(volumes, snapshots, inventory)
        if missing and not force and not self._is_same(old, new):
            raise Conflict(
                f"{new} is not what {old} was: the files of {_listed(missing, len(missing))} are not there",
                hint="name the right backend; with --force the records are moved all the same",
                missing=len(missing),
            )
        records.move_backend(old, new)
        self._forget_unknown(new, {one.name for one in volumes} | {f"{one.volume}@{one.name}" for one in snapshots})
        self._reconciler.backend(new)
        self._shop.log.warning("the records of %d volumes of backend %s are moved to %s", len(volumes), old, new)
        return len(volumes)

    def _is_same(self, old: str, new: str) -> bool:
        known = [identity_from(self._shop.records.backends.identity(each)) for each in (old, new)]
        return known[0] is not None and known[1] is not None and known[0].id == known[1].id

    def accept(self, name: str) -> None:
        """Let a backend take its directory as it is; see `VolumeManager.accept_backend`."""
        if name in self._shop.drivers and self._shop.drivers.status(name).state is DriverState.READY:
            raise Conflict(f"the backend {name} is ready, there is nothing to accept")
        if name not in self._shop.drivers:
            self._shop.backend(name)  # says that there is none
        self._shop.records.backends.forget_identity(name)
        self._shop.log.warning("the backend %s takes its directory as it is then, at its next try", name)

    def problems(self) -> list[str]:
        """Return which records have no backend and which files no record, a line for each backend."""
        return [*self._gone(), *(self._unrecorded(*one) for one in self._shop.unknown.items() if one[1])]

    def _gone(self) -> list[str]:
        lines = []
        for backend, count in self._shop.records.backends_used().items():
            if backend in self._shop.drivers:
                continue
            names = self._shop.records.first_names(backend, _SHOWN)
            now = next((each for each in self._shop.drivers.ready() if self._is_same(backend, each)), "")
            way = f"`ostler volume move-backend {backend} {now or 'NEW'}` brings them to "
            way += f"{now}, which has its directory now" if now else "the backend that has its files now"
            lines.append(
                f"there is no backend {backend} in the configuration, and {_count(count, 'volume')} on it: "
                f"{_listed(names, count)}; {way}, `ostler volume forget NAME` drops a record"
            )
        return lines

    @staticmethod
    def _unrecorded(backend: str, unknown: dict[str, int]) -> str:
        return (
            f"{_count(len(unknown), 'file')} without a record on backend {backend}, left alone: "
            f"{_listed([*unknown], len(unknown))}; `ostler volume manage NAME` takes a volume over with its snapshots"
        )

    def annotated(self, volumes: list[Volume]) -> list[Volume]:
        """Return volumes as they are shown: those whose backend is not there, or not ready, say so."""
        notes = {backend: self._note(backend) for backend in {one.backend for one in volumes}}
        return [_with_note(one, *notes[one.backend]) for one in volumes]

    def _note(self, backend: str) -> tuple[str, str]:
        if backend not in self._shop.drivers:
            return f"there is no backend {backend} in the configuration", BACKEND
        status = self._shop.drivers.status(backend)
        if status.state is DriverState.READY:
            return "", ""
        return f"its backend {backend} is {status.state}{': ' * bool(status.why)}{status.why}", ""


def _with_note(volume: Volume, why: str, fault: str) -> Volume:
    if not why or (volume.why and not fault):
        return volume
    return msgspec.structs.replace(volume, why=why, fault=fault or volume.fault)


def _missing(volumes: list[Volume], snapshots: list[Snapshot], inventory: Inventory) -> list[str]:
    """Return the complete volumes and snapshots that are not there, or are of another size."""
    sizes = {key: one.size for key, one in (*inventory.volumes.items(), *inventory.snapshots.items())}
    wanted = {one.name: one for one in volumes} | {f"{one.volume}@{one.name}": one for one in snapshots}
    unsettled = {VolumeState.CREATING, VolumeState.DELETING, VolumeState.EXTENDING}
    return [
        key
        for key, one in wanted.items()
        if one.state not in unsettled and one.fault not in unsettled and sizes.get(key) != one.size
        if not (one.state == VolumeState.ERROR and key not in sizes)
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _listed(names: list[str], count: int) -> str:
    more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
