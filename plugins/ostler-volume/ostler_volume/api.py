"""`VolumeApi`: a typed client of volumes, for programs and other managers."""

# A stub has a docstring and no body.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from ostler import RpcApi, remote
from ostler_volume.api_types import Snapshot, SnapshotListing, Upload, Volume, VolumeListing


class VolumeApi(RpcApi):
    """The calls of `VolumeManager`, whose docstrings describe arguments and errors."""

    topic = "volume"
    rpc_version = "1.1"

    @remote()
    def create_volume(
        self,
        name: str,
        size: int | str = "",
        backend: str = "",
        image: str = "",
        source: str = "",
        snapshot: str = "",
        on_host: str = "",
    ) -> Volume:
        """Create a volume: of zeros, or from an image, a volume or a snapshot."""

    @remote()
    def image_directories(self, backend: str = "") -> list[str]:
        """Return the directories on this host from which images can be used by their path."""

    @remote()
    def begin_upload(
        self,
        name: str,
        length: int,
        size: int | str = "",
        backend: str = "",
        label: str = "",
        *,
        on_host: str = "",
        anywhere: bool = False,
    ) -> Upload:
        """Begin a volume whose content the caller uploads; see `ostler_volume.upload_client`, which does all of it."""

    @remote()
    def upload_piece(self, upload: str, offset: int, data: bytes) -> None:
        """Upload a piece of the content, in any order, also repeatedly. Parts that are never uploaded are zeros."""

    @remote()
    def finish_upload(self, upload: str) -> Volume:
        """Complete the volume from the uploaded content."""

    @remote()
    def cancel_upload(self, upload: str) -> None:
        """Cancel an upload and remove its content."""

    @remote()
    def list_volumes(self, backend: str = "", on_host: str = "") -> list[Volume]:
        """Return the volumes of all reachable hosts, by name and host."""

    @remote(version="1.1")
    def volume_listing(self, backend: str = "", on_host: str = "") -> VolumeListing:
        """Return the result of `list_volumes`, and the unreachable hosts."""

    @remote(version="1.1")
    def find_volume(self, name: str) -> VolumeListing:
        """Return the volumes of a name on all reachable hosts."""

    @remote()
    def get_volume(self, name: str, on_host: str = "") -> Volume:
        """Return a volume on any host; `name` may be `NAME@HOST`, here and below."""

    @remote()
    def extend_volume(self, name: str, size: int | str, on_host: str = "") -> Volume:
        """Extend a volume; it must be available."""

    @remote()
    def delete_volume(self, name: str, on_host: str = "") -> None:
        """Delete a volume that is available or in error, and has no snapshots."""

    @remote()
    def attach_volume(self, name: str, on_host: str = "") -> Volume:
        """Attach a volume as a block device of its host; `device` of the result is its path there."""

    @remote()
    def detach_volume(self, name: str, on_host: str = "") -> Volume:
        """Detach a volume: remove its block device."""

    @remote()
    def create_snapshot(self, volume: str, name: str, on_host: str = "") -> Snapshot:
        """Create a snapshot of a volume; the volume must be available."""

    @remote()
    def list_snapshots(self, volume: str = "", on_host: str = "") -> list[Snapshot]:
        """Return the snapshots of all reachable hosts, or those of a volume."""

    @remote(version="1.1")
    def snapshot_listing(self, volume: str = "", on_host: str = "") -> SnapshotListing:
        """Return the result of `list_snapshots`, and the unreachable hosts."""

    @remote()
    def delete_snapshot(self, volume: str, name: str, on_host: str = "") -> None:
        """Delete a snapshot."""

    @remote(version="1.1")
    def manage_volume(self, name: str, backend: str = "", on_host: str = "") -> Volume:
        """Manage a file without a record: it becomes a volume, together with its snapshots."""

    @remote(version="1.1")
    def forget_volume(self, name: str, on_host: str = "") -> None:
        """Drop the records of a volume and its snapshots; the files on the backend do not change."""

    @remote(version="1.1")
    def move_backend(self, old: str, new: str, force: bool = False, on_host: str = "") -> int:
        """Move the records of a backend to another backend name; return the number of volumes."""

    @remote(version="1.1")
    def accept_backend(self, name: str, on_host: str = "") -> None:
        """Accept the current directory of a backend whose identity does not match, at its next initialisation."""
