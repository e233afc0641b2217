"""Operations on backends and records: manage a file, drop a record, move records to a renamed backend."""

from __future__ import annotations

import msgspec

from ostler import Conflict, Context, DriverState, InvalidInput
from ostler_volume.api_types import Snapshot, Volume
from ostler_volume.argument_validation import parse_name, split_snapshot_name
from ostler_volume.backend_identity import identity_from
from ostler_volume.driver import Inventory
from ostler_volume.errors import AlreadyExists, VolumeNotFound, WrongState
from ostler_volume.reconciler import Reconciler
from ostler_volume.volume_context import VolumeContext
from ostler_volume.volume_states import VolumeState

FAULT_BACKEND = "backend"
"""The fault of a volume whose backend is not in the configuration."""
_MAX_SHOWN_NAMES = 5
_STABLE_STATES = frozenset({VolumeState.AVAILABLE, VolumeState.ERROR})


class BackendOperations:
    """Reassigns records, files and backends. All methods block.

    Args:
        context: Records, drivers and claims.
        reconciler: Reconciles records and files afterwards.
    """

    def __init__(self, context: VolumeContext, reconciler: Reconciler) -> None:
        self._context = context
        self._reconciler = reconciler

    def manage(self, ctx: Context, name: str, backend: str = "") -> Volume:
        """Manage a file without a record, with its snapshots; see `VolumeManager.manage_volume`."""
        volume = parse_name(name)
        with self._context.locks.lock_shared(ctx, volume):
            backend, inventory = self._find_unrecorded(volume, backend)
            found = inventory.volumes[volume]
            snapshots = {key: one.size for key, one in inventory.snapshots.items() if key.startswith(f"{volume}@")}
            names = {split_snapshot_name(key)[1]: size for key, size in snapshots.items()}
            self._context.records.adopt(volume, backend, found.size, names)
            device = inventory.devices.get(volume, "")
            if device:
                self._context.records.end_transition(volume, VolumeState.IN_USE, device=device)
            self._forget_unknown(backend, {volume, *snapshots})
        self._context.log.info("volume %s on %s is managed", volume, backend)
        self._context.notify("managed", {"name": volume, "backend": backend, "size": found.size})
        return self._context.records.volume(volume)

    def _find_unrecorded(self, name: str, backend: str) -> tuple[str, Inventory]:
        chosen = [backend] if backend else self._context.drivers.ready()
        found = {
            each: seen for each in chosen if name in (seen := self._context.ready_driver(each).inventory()).volumes
        }
        try:
            there = self._context.records.volume(name)
        except VolumeNotFound:
            pass
        else:
            raise AlreadyExists(f"volume {name} is already managed, on backend {there.backend}", name=name)
        if not found:
            where = f"on backend {backend}" if backend else "on any ready backend"
            raise VolumeNotFound(
                f"no file {name} without a record found {where}", hint="`ostler status` lists such files", name=name
            )
        if len(found) > 1:
            raise InvalidInput(
                f"several backends have a file {name}: {', '.join(found)}", hint="choose one with --backend"
            )
        return next(iter(found.items()))

    def _forget_unknown(self, backend: str, keys: set[str]) -> None:
        unknown = self._context.unrecorded.get(backend, {})
        self._context.unrecorded[backend] = {key: size for key, size in unknown.items() if key not in keys}

    def forget(self, ctx: Context, name: str) -> None:
        """Drop the records of a volume and its snapshots; see `VolumeManager.forget_volume`."""
        name = parse_name(name)
        with self._context.locks.lock_shared(ctx, name):
            volume = self._context.records.volume(name)
            ready = volume.backend in self._context.drivers.ready()
            if ready and volume.state not in _STABLE_STATES:
                hint = (
                    f"detach it first: `ostler volume detach {name}`"
                    if volume.device
                    else "wait until this has finished"
                )
                raise WrongState(
                    f"volume {name} is {volume.state}, so its record cannot be dropped", hint=hint, state=volume.state
                )
            self._context.records.delete_with_snapshots(name)
        if ready:
            self._reconciler.reconcile_backend(volume.backend)
        self._context.log.warning(
            "the record of volume %s on %s was dropped; its file was not changed", name, volume.backend
        )
        self._context.notify("forgotten", {"name": name, "backend": volume.backend})

    def move(self, old: str, new: str, *, force: bool = False) -> int:
        """Move the records of a backend to another backend name; see `VolumeManager.move_backend`."""
        records = self._context.records
        volumes, snapshots = records.volumes(old), records.snapshots(backend=old)
        if not volumes:
            raise InvalidInput(f"no volume is recorded on the backend {old}", hint="`ostler volume list` shows them")
        if old == new:
            raise InvalidInput(f"the volumes are already on the backend {old}")
        if old in self._context.drivers.ready():
            raise Conflict(
                f"the backend {old} is ready, so its records cannot be moved", hint="copy the volumes instead"
            )
        inventory = self._context.ready_driver(new).inventory()
        missing = _missing_names(volumes, snapshots, inventory)
        if missing and not force and not self._is_same(old, new):
            raise Conflict(
                f"the backend {new} does not have the files of {old}: {_join_names(missing, len(missing))} not found",
                hint="give the right backend, or use --force to move the records nevertheless",
                missing=len(missing),
            )
        records.move_backend(old, new)
        self._forget_unknown(new, {one.name for one in volumes} | {f"{one.volume}@{one.name}" for one in snapshots})
        self._reconciler.reconcile_backend(new)
        self._context.log.warning("the records of %d volumes of backend %s were moved to %s", len(volumes), old, new)
        return len(volumes)

    def _is_same(self, old: str, new: str) -> bool:
        known = [identity_from(self._context.records.backends.identity(each)) for each in (old, new)]
        return known[0] is not None and known[1] is not None and known[0].id == known[1].id

    def accept(self, name: str) -> None:
        """Accept the current directory of a backend; see `VolumeManager.accept_backend`."""
        if name in self._context.drivers and self._context.drivers.status(name).state is DriverState.READY:
            raise Conflict(f"the backend {name} is ready; nothing to accept")
        if name not in self._context.drivers:
            self._context.ready_driver(name)  # raises
        self._context.records.backends.forget_identity(name)
        self._context.log.warning("the backend %s will accept its current directory when it is initialised next", name)

    def problems(self) -> list[str]:
        """Return records without a backend and files without a record, a line for each backend."""
        return [
            *self._missing_backend_problems(),
            *(self._unrecorded_problem(*one) for one in self._context.unrecorded.items() if one[1]),
        ]

    def _missing_backend_problems(self) -> list[str]:
        lines = []
        for backend, count in self._context.records.backends_used().items():
            if backend in self._context.drivers:
                continue
            names = self._context.records.first_names(backend, _MAX_SHOWN_NAMES)
            now = next((each for each in self._context.drivers.ready() if self._is_same(backend, each)), "")
            way = f"`ostler volume move-backend {backend} {now or 'NEW'}` moves the records to "
            way += f"{now}, which has its directory now" if now else "the backend that has its files now"
            lines.append(
                f"backend {backend} is not in the configuration, but has {_count(count, 'volume')}: "
                f"{_join_names(names, count)}; {way}, `ostler volume forget NAME` drops a record"
            )
        return lines

    @staticmethod
    def _unrecorded_problem(backend: str, unknown: dict[str, int]) -> str:
        return (
            f"{_count(len(unknown), 'file')} without a record on backend {backend}, ignored: "
            f"{_join_names([*unknown], len(unknown))}; `ostler volume manage NAME` manages a volume with its snapshots"
        )

    def annotate(self, volumes: list[Volume]) -> list[Volume]:
        """Return volumes as they are shown: with the fault if the backend is missing or not ready."""
        notes = {backend: self._backend_note(backend) for backend in {one.backend for one in volumes}}
        return [_with_backend_note(one, *notes[one.backend]) for one in volumes]

    def _backend_note(self, backend: str) -> tuple[str, str]:
        if backend not in self._context.drivers:
            return f"backend {backend} is not in the configuration", FAULT_BACKEND
        status = self._context.drivers.status(backend)
        if status.state is DriverState.READY:
            return "", ""
        return f"its backend {backend} is {status.state}{': ' * bool(status.why)}{status.why}", ""


def _with_backend_note(volume: Volume, why: str, fault: str) -> Volume:
    if not why or (volume.why and not fault):
        return volume
    return msgspec.structs.replace(volume, why=why, fault=fault or volume.fault)


def _missing_names(volumes: list[Volume], snapshots: list[Snapshot], inventory: Inventory) -> list[str]:
    """Return the complete volumes and snapshots whose file is missing or has another size."""
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


def _join_names(names: list[str], count: int) -> str:
    more = f" and {count - _MAX_SHOWN_NAMES} more" if count > _MAX_SHOWN_NAMES else ""
    return ", ".join(names[:_MAX_SHOWN_NAMES]) + more
