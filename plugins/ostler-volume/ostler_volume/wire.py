"""What goes over the wire: volumes and snapshots as an operator sees them."""

from __future__ import annotations

from typing import TypeVar

import msgspec

M = TypeVar("M", "Volume", "Upload")


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume.

    Sizes are bytes, times are wall times in seconds since 1970. `why` says more about the state, `fault` is one word
    for what went wrong in state `error`: `missing`, `size`, or the state it failed in. `promised` is what the backend
    keeps room for: the size, or the new size while it is being extended. `source` is where the content came from:
    `image:/PATH`, `upload:FILE`, `volume:NAME`, `snapshot:VOLUME@NAME`, or empty. `device` is set while the volume
    is in use; it is a path on `host`. `note` is set in the answer of what made it alone: what was not as usual when its
    place was chosen.
    """

    name: str
    size: int
    state: str
    backend: str
    host: str = ""
    why: str = ""
    since: float = 0.0
    fault: str = ""
    promised: int = 0
    source: str = ""
    created: float = 0.0
    device: str = ""
    snapshots: int = 0
    note: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot: the content of a volume at one moment; the fields mean what they mean in `Volume`."""

    volume: str
    name: str
    size: int
    state: str
    backend: str
    why: str = ""
    since: float = 0.0
    fault: str = ""
    created: float = 0.0
    host: str = ""


class VolumeListing(msgspec.Struct, frozen=True, kw_only=True):
    """The volumes of all hosts that could be asked, by name and host; `unreachable` says why others could not, by host.

    `host` is the one that was asked for them.
    """

    volumes: list[Volume]
    host: str = ""
    unreachable: dict[str, str] = {}


class SnapshotListing(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshots of all hosts that could be asked; see `VolumeListing`."""

    snapshots: list[Snapshot]
    host: str = ""
    unreachable: dict[str, str] = {}


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A volume whose content its caller hands over in pieces of at most `piece` bytes, under the name `id`.

    The pieces, and its end, go to the service on `host`. `note` is that of the volume that is made of it; see `Volume`.
    """

    id: str
    name: str
    size: int
    backend: str
    piece: int
    note: str = ""
    host: str = ""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler answers: where a volume should go, and the id of its promise of room there."""

    host: str
    backend: str
    lease: str = ""


def with_note(made: M, *notes: str) -> M:
    """Return a volume or an upload with a note of what was not as usual, after the one that it may have already."""
    said = [note for note in (made.note, *notes) if note]
    return msgspec.structs.replace(made, note="; ".join(said)) if said else made
