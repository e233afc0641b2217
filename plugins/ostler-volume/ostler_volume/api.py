"""`VolumeApi`: volumes from other programs and managers, with types."""

# A stub has a docstring and no body.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from ostler import RpcApi, remote
from ostler_volume.wire import Snapshot, SnapshotListing, Upload, Volume, VolumeListing


class VolumeApi(RpcApi):
    """The calls of `VolumeManager`; what each does, takes and raises stands there."""

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
        """Make a volume; of zeros, or from one of an image, a volume or a snapshot."""

    @remote()
    def image_directories(self, backend: str = "") -> list[str]:
        """Return the directories on this host that images may be taken from by their path."""

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
        """Begin a volume whose content the caller hands over; see `ostler_volume.uploading`, which does all of it."""

    @remote()
    def upload_piece(self, upload: str, offset: int, data: bytes) -> None:
        """Hand over a piece of the content; pieces may come in any order, and again. What never comes is zeros."""

    @remote()
    def finish_upload(self, upload: str) -> Volume:
        """Make the volume of what was handed over."""

    @remote()
    def cancel_upload(self, upload: str) -> None:
        """Give an upload up; nothing is left of it."""

    @remote()
    def list_volumes(self, backend: str = "", on_host: str = "") -> list[Volume]:
        """Return the volumes of all hosts that can be asked, by name and host."""

    @remote(version="1.1")
    def volume_listing(self, backend: str = "", on_host: str = "") -> VolumeListing:
        """Return what `list_volumes` returns, and which hosts could not be asked."""

    @remote(version="1.1")
    def find_volume(self, name: str) -> VolumeListing:
        """Return the volumes of a name on all hosts that can be asked."""

    @remote()
    def get_volume(self, name: str, on_host: str = "") -> Volume:
        """Return a volume, wherever it is; `name` may be `NAME@HOST`, here and below."""

    @remote()
    def extend_volume(self, name: str, size: int | str, on_host: str = "") -> Volume:
        """Make a volume larger; it must be available."""

    @remote()
    def delete_volume(self, name: str, on_host: str = "") -> None:
        """Delete a volume that is available or in error, and has no snapshots."""

    @remote()
    def attach_volume(self, name: str, on_host: str = "") -> Volume:
        """Make a volume a block device of its host; `device` of the result is its path there."""

    @remote()
    def detach_volume(self, name: str, on_host: str = "") -> Volume:
        """Take the block device of a volume away."""

    @remote()
    def create_snapshot(self, volume: str, name: str, on_host: str = "") -> Snapshot:
        """Keep the content of a volume as it is now; the volume must be available."""

    @remote()
    def list_snapshots(self, volume: str = "", on_host: str = "") -> list[Snapshot]:
        """Return the snapshots of all hosts that can be asked, or those of a volume."""

    @remote(version="1.1")
    def snapshot_listing(self, volume: str = "", on_host: str = "") -> SnapshotListing:
        """Return what `list_snapshots` returns, and which hosts could not be asked."""

    @remote()
    def delete_snapshot(self, volume: str, name: str, on_host: str = "") -> None:
        """Delete a snapshot."""

    @remote(version="1.1")
    def manage_volume(self, name: str, backend: str = "", on_host: str = "") -> Volume:
        """Take over a file without a record: it becomes a volume, with the snapshots that are there of it."""

    @remote(version="1.1")
    def forget_volume(self, name: str, on_host: str = "") -> None:
        """Drop the record of a volume and those of its snapshots; what is on the backend is left as it is."""

    @remote(version="1.1")
    def move_backend(self, old: str, new: str, force: bool = False, on_host: str = "") -> int:
        """Have the records of a backend follow it to another name; return how many volumes there are."""

    @remote(version="1.1")
    def accept_backend(self, name: str, on_host: str = "") -> None:
        """Let a backend that is not the one it was take its directory as it is, at its next try."""
