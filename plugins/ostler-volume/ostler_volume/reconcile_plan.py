"""Decides how to correct a record from the actual files: pure functions without side effects."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from ostler import format_size
from ostler_volume.api_types import Snapshot, Volume
from ostler_volume.driver import BackendObject, Inventory
from ostler_volume.volume_states import SnapshotState, VolumeState

FAULT_MISSING = "missing"
FAULT_SIZE = "size"

ActionKind: TypeAlias = Literal["keep", "settle", "forget", "delete"]
"""Leave the record, set it, remove it with its unfinished file, or complete its deletion."""


class RepairAction(NamedTuple):
    """The action for a record, and for `settle` its new state."""

    kind: ActionKind
    state: str = ""
    why: str = ""
    fault: str = ""
    size: int | None = None
    device: str = ""


KEEP = RepairAction("keep")


def plan_volume(volume: Volume, inventory: Inventory) -> RepairAction:
    """Return the action for the record of a volume that no request is working on."""
    found = inventory.volumes.get(volume.name)
    state = _effective_state(volume)
    if state == VolumeState.CREATING:
        # A file has its final name only if it is complete. One of another size is a different file.
        whole = found is not None and found.size == volume.size
        return RepairAction("settle", VolumeState.AVAILABLE) if whole else RepairAction("forget")
    if state == VolumeState.DELETING:
        return RepairAction("delete")
    if found is not None and state == VolumeState.EXTENDING:
        return RepairAction("settle", VolumeState.AVAILABLE, size=found.size)
    wrong = _mismatch(volume.name, volume.size, found)
    if wrong is not None:
        return KEEP if volume.fault == wrong.fault else wrong
    return plan_device(volume, inventory.devices.get(volume.name, ""))


def plan_snapshot(snapshot: Snapshot, inventory: Inventory) -> RepairAction:
    """Return the action for the record of a snapshot that no request is working on."""
    found = inventory.snapshots.get(f"{snapshot.volume}@{snapshot.name}")
    state = _effective_state(snapshot)
    if state == SnapshotState.CREATING:
        return RepairAction("settle", SnapshotState.AVAILABLE) if found is not None else RepairAction("forget")
    if state == SnapshotState.DELETING:
        return RepairAction("delete")
    wrong = _mismatch(f"{snapshot.volume}@{snapshot.name}", snapshot.size, found)
    if wrong is not None:
        return KEEP if snapshot.fault == wrong.fault else wrong
    return KEEP if state == SnapshotState.AVAILABLE else RepairAction("settle", SnapshotState.AVAILABLE)


def _effective_state(thing: Volume | Snapshot) -> str:
    """Return the state; for an error with an unknown outcome, the state in which it failed."""
    failed_in = thing.state == VolumeState.ERROR and thing.fault not in {"", FAULT_MISSING, FAULT_SIZE}
    return thing.fault if failed_in else thing.state


def _mismatch(name: str, size: int, found: BackendObject | None) -> RepairAction | None:
    if found is None:
        return RepairAction("settle", VolumeState.ERROR, f"the file of {name} is missing", FAULT_MISSING)
    if found.size != size:
        why = f"the file of {name} has {format_size(found.size)} instead of {format_size(size)}"
        return RepairAction("settle", VolumeState.ERROR, why, FAULT_SIZE)
    return None


def plan_device(volume: Volume, device: str) -> RepairAction:
    """Return what becomes of a volume of which it is known whether, and to which device, it is attached."""
    state = VolumeState.IN_USE if device else VolumeState.AVAILABLE
    if (volume.state, volume.device) == (state, device):
        return KEEP
    return RepairAction("settle", state, device=device)
