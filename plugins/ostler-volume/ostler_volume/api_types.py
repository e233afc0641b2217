"""The types of results: volumes and snapshots."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ostler import WallTime

M = TypeVar("M", "Volume", "Upload")


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume.

    Sizes are bytes, times are wall times in seconds since 1970. `why` is the reason of the state, `fault` the kind of
    failure in state `error`: `missing`, `size`, or the state in which it failed. `promised` is the space that the
    backend reserves: the size, or the new size while it is being extended. `source` is the origin of the content:
    `image:/PATH`, `upload:FILE`, `volume:NAME`, `snapshot:VOLUME@NAME`, or empty. `device` is set while the volume
    is in use; it is a path on `host`. `note` is set only in the result of the request that created it: what was unusual
    in the choice of its backend.
    """

    name: str
    size: int
    state: str
    backend: str
    host: str = ""
    why: str = ""
    since: WallTime = 0.0
    fault: str = ""
    promised: int = 0
    source: str = ""
    created: WallTime = 0.0
    device: str = ""
    snapshots: int = 0
    note: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a volume; for the fields see `Volume`."""

    volume: str
    name: str
    size: int
    state: str
    backend: str
    why: str = ""
    since: WallTime = 0.0
    fault: str = ""
    created: WallTime = 0.0
    host: str = ""


class VolumeListing(msgspec.Struct, frozen=True, kw_only=True):
    """The volumes of all reachable hosts, by name and host; `unreachable` has the reasons of the others, by host.

    `host` is the one that returned the listing.
    """

    volumes: list[Volume]
    host: str = ""
    unreachable: dict[str, str] = {}


class SnapshotListing(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshots of all reachable hosts; see `VolumeListing`."""

    snapshots: list[Snapshot]
    host: str = ""
    unreachable: dict[str, str] = {}


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A volume whose content its caller uploads in pieces of at most `piece` bytes; `id` identifies the upload.

    The pieces and its end must be sent to the service on `host`. For `note` see `Volume`.
    """

    id: str
    name: str
    size: int
    backend: str
    piece: int
    note: str = ""
    host: str = ""


class SchedulerSelection(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the scheduler: the backend of a volume, and the id of its promise of space there."""

    host: str
    backend: str
    lease: str = ""


def with_note(made: M, *notes: str) -> M:
    """Return a volume or an upload with a note appended to its existing one."""
    said = [note for note in (made.note, *notes) if note]
    return msgspec.structs.replace(made, note="; ".join(said)) if said else made
