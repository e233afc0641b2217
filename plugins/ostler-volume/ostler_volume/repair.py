"""What a record should say, given what is really there: pure judgement, nothing is done here."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from ostler import format_size
from ostler_volume.driver import Found, Inventory
from ostler_volume.states import SnapshotState, VolumeState
from ostler_volume.wire import Snapshot, Volume

MISSING = "missing"
SIZE = "size"

Step: TypeAlias = Literal["keep", "settle", "forget", "delete"]
"""Leave the record, set it, remove it with what is left of an unfinished thing, or finish its deletion."""


class Judgement(NamedTuple):
    """What to do about a record, and for `settle` what it should say."""

    step: Step
    state: str = ""
    why: str = ""
    fault: str = ""
    size: int | None = None
    device: str = ""


KEEP = Judgement("keep")


def judge_volume(volume: Volume, inventory: Inventory) -> Judgement:
    """Return what to do about the record of a volume that nobody is working on."""
    found = inventory.volumes.get(volume.name)
    state = _doing(volume)
    if state == VolumeState.CREATING:
        # A file has its name only when it is complete. One of another size is somebody else's.
        whole = found is not None and found.size == volume.size
        return Judgement("settle", VolumeState.AVAILABLE) if whole else Judgement("forget")
    if state == VolumeState.DELETING:
        return Judgement("delete")
    if found is not None and state == VolumeState.EXTENDING:
        return Judgement("settle", VolumeState.AVAILABLE, size=found.size)
    wrong = _wrong(volume.name, volume.size, found)
    if wrong is not None:
        return KEEP if volume.fault == wrong.fault else wrong
    return _judge_device(volume, inventory.devices.get(volume.name, ""))


def judge_snapshot(snapshot: Snapshot, inventory: Inventory) -> Judgement:
    """Return what to do about the record of a snapshot that nobody is working on."""
    found = inventory.snapshots.get(f"{snapshot.volume}@{snapshot.name}")
    state = _doing(snapshot)
    if state == SnapshotState.CREATING:
        return Judgement("settle", SnapshotState.AVAILABLE) if found is not None else Judgement("forget")
    if state == SnapshotState.DELETING:
        return Judgement("delete")
    wrong = _wrong(f"{snapshot.volume}@{snapshot.name}", snapshot.size, found)
    if wrong is not None:
        return KEEP if snapshot.fault == wrong.fault else wrong
    return KEEP if state == SnapshotState.AVAILABLE else Judgement("settle", SnapshotState.AVAILABLE)


def _doing(thing: Volume | Snapshot) -> str:
    """Return the state; for an error whose outcome was unknown, the state that it failed in."""
    failed_in = thing.state == VolumeState.ERROR and thing.fault not in {"", MISSING, SIZE}
    return thing.fault if failed_in else thing.state


def _wrong(name: str, size: int, found: Found | None) -> Judgement | None:
    if found is None:
        return Judgement("settle", VolumeState.ERROR, f"the file of {name} is missing", MISSING)
    if found.size != size:
        why = f"the file of {name} has {format_size(found.size)} and should have {format_size(size)}"
        return Judgement("settle", VolumeState.ERROR, why, SIZE)
    return None


def _judge_device(volume: Volume, device: str) -> Judgement:
    state = VolumeState.IN_USE if device else VolumeState.AVAILABLE
    if (volume.state, volume.device) == (state, device):
        return KEEP
    return Judgement("settle", state, device=device)
