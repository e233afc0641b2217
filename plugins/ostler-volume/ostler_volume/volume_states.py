"""The states of volumes and snapshots, and the tables of their transitions.

A state that ends in -ing means work in progress. After a crash `reconciler` compares the record with the files and
changes its state, so every such state has transitions to the previous state, to the target, and to `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class VolumeState(StrEnum):
    """The states of a volume; a record in `error` has the reason, the time, and what failed."""

    CREATING = "creating"
    AVAILABLE = "available"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    EXTENDING = "extending"
    DELETING = "deleting"
    ERROR = "error"


class SnapshotState(StrEnum):
    """The states of a snapshot."""

    CREATING = "creating"
    AVAILABLE = "available"
    DELETING = "deleting"
    ERROR = "error"


_V, _S = VolumeState, SnapshotState

VOLUME_TRANSITIONS: Mapping[VolumeState, frozenset[VolumeState]] = {
    _V.CREATING: frozenset({_V.AVAILABLE, _V.ERROR}),
    # To `in-use` without `attaching` only if the file was attached to a loop device manually.
    _V.AVAILABLE: frozenset({_V.ATTACHING, _V.EXTENDING, _V.DELETING, _V.IN_USE, _V.ERROR}),
    _V.ATTACHING: frozenset({_V.IN_USE, _V.AVAILABLE, _V.ERROR}),
    # To `available` without `detaching` if the device disappeared at a reboot; to itself if it has another device now.
    _V.IN_USE: frozenset({_V.DETACHING, _V.AVAILABLE, _V.IN_USE, _V.ERROR}),
    _V.DETACHING: frozenset({_V.AVAILABLE, _V.IN_USE, _V.ERROR}),
    _V.EXTENDING: frozenset({_V.AVAILABLE, _V.ERROR}),
    # Back to `available` if the driver refused before it had changed anything.
    _V.DELETING: frozenset({_V.AVAILABLE, _V.ERROR}),
    # Out of `error` automatically only if the cause is fixed; a request can only delete.
    _V.ERROR: frozenset({_V.DELETING, _V.AVAILABLE, _V.IN_USE, _V.ERROR}),
}

SNAPSHOT_TRANSITIONS: Mapping[SnapshotState, frozenset[SnapshotState]] = {
    _S.CREATING: frozenset({_S.AVAILABLE, _S.ERROR}),
    _S.AVAILABLE: frozenset({_S.DELETING, _S.ERROR}),
    _S.DELETING: frozenset({_S.AVAILABLE, _S.ERROR}),
    _S.ERROR: frozenset({_S.DELETING, _S.AVAILABLE, _S.ERROR}),
}

STATE_VERBS: Mapping[str, str] = {
    _V.ATTACHING: "attached",
    _V.DETACHING: "detached",
    _V.EXTENDING: "extended",
    _V.DELETING: "deleted",
}
"""The past participles of operations, for refusals."""

STATE_HINTS: Mapping[str, str] = {
    _V.CREATING: "wait until it has been created, or cancel its creation",
    _V.AVAILABLE: "it is not attached",
    _V.ATTACHING: "retry in a moment; `ostler volume show` shows its state",
    _V.IN_USE: "detach it first: `ostler volume detach {name}`",
    _V.DETACHING: "retry in a moment; `ostler volume show` shows its state",
    _V.EXTENDING: "retry in a moment; `ostler volume show` shows its state",
    _V.DELETING: "it is being deleted",
    _V.ERROR: "`ostler volume show` says why; if it cannot be fixed, delete it",
}
"""The hint for a state that forbids a request; `{name}` is replaced by the volume."""
