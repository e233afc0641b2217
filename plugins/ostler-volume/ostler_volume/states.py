"""The states of volumes and snapshots, and which may follow which: two tables and nothing else.

A state with a name in -ing is being worked on. After a crash `reconcile` looks at what is really there and moves the
record on, so every such state has a way to where it came from, to where it was going, and to `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class VolumeState(StrEnum):
    """What a volume is; `error` carries why, since, and what failed."""

    CREATING = "creating"
    AVAILABLE = "available"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    EXTENDING = "extending"
    DELETING = "deleting"
    ERROR = "error"


class SnapshotState(StrEnum):
    """What a snapshot is."""

    CREATING = "creating"
    AVAILABLE = "available"
    DELETING = "deleting"
    ERROR = "error"


V, S = VolumeState, SnapshotState

VOLUME_MOVES: Mapping[VolumeState, frozenset[VolumeState]] = {
    V.CREATING: frozenset({V.AVAILABLE, V.ERROR}),
    # To `in-use` without `attaching` only when somebody made a loop device of the file by hand.
    V.AVAILABLE: frozenset({V.ATTACHING, V.EXTENDING, V.DELETING, V.IN_USE, V.ERROR}),
    V.ATTACHING: frozenset({V.IN_USE, V.AVAILABLE, V.ERROR}),
    # To `available` without `detaching` when the device went with a reboot; to itself when it has another device now.
    V.IN_USE: frozenset({V.DETACHING, V.AVAILABLE, V.IN_USE, V.ERROR}),
    V.DETACHING: frozenset({V.AVAILABLE, V.IN_USE, V.ERROR}),
    V.EXTENDING: frozenset({V.AVAILABLE, V.ERROR}),
    # Back to `available` when the driver refused before it had changed anything.
    V.DELETING: frozenset({V.AVAILABLE, V.ERROR}),
    # Out of `error` by itself only when what was wrong has been put right; a request can only delete.
    V.ERROR: frozenset({V.DELETING, V.AVAILABLE, V.IN_USE, V.ERROR}),
}

SNAPSHOT_MOVES: Mapping[SnapshotState, frozenset[SnapshotState]] = {
    S.CREATING: frozenset({S.AVAILABLE, S.ERROR}),
    S.AVAILABLE: frozenset({S.DELETING, S.ERROR}),
    S.DELETING: frozenset({S.AVAILABLE, S.ERROR}),
    S.ERROR: frozenset({S.DELETING, S.AVAILABLE, S.ERROR}),
}

VERBS: Mapping[str, str] = {
    V.ATTACHING: "attached",
    V.DETACHING: "detached",
    V.EXTENDING: "extended",
    V.DELETING: "deleted",
}
"""What a request wants to do, for the sentence that refuses it."""

HINTS: Mapping[str, str] = {
    V.CREATING: "wait until it is done, or cancel what creates it",
    V.AVAILABLE: "it is attached nowhere",
    V.ATTACHING: "wait a moment and look again with `ostler volume show`",
    V.IN_USE: "detach it first: `ostler volume detach {name}`",
    V.DETACHING: "wait a moment and look again with `ostler volume show`",
    V.EXTENDING: "wait a moment and look again with `ostler volume show`",
    V.DELETING: "it is on its way out",
    V.ERROR: "`ostler volume show` says why; what cannot be put right can be deleted",
}
"""What to do about a state that forbids a request; `{name}` stands for the volume."""
