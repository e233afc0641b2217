"""What this plugin refuses, by name; the sentences are made where the facts are.

RequestError
├── InvalidInput
│   ├── BadName              a name that no volume can have
│   ├── BadSize              a size that can never be right
│   ├── BadImage             an image that is missing, unreadable, no file, too large, or in another format
│   └── UnknownBackend       no such backend in the configuration
├── NotFound
│   ├── VolumeNotFound
│   ├── SnapshotNotFound
│   └── UploadNotFound       no such upload of this caller: it has ended, or was given up
├── Conflict
│   ├── AlreadyExists        a volume, snapshot or file of that name is there
│   ├── WrongState           the state forbids it
│   ├── HasSnapshots         a volume with snapshots cannot be deleted
│   └── DeviceBusy           the device is mounted or open
├── ImageNotResponding       what an image lies on does not answer; the backend is well
├── NotSupported             this backend cannot do that, or not on this machine
└── NoCapacity               (of ostler) not enough room
"""

from __future__ import annotations

from ostler import Conflict, InvalidInput, NotFound, RequestError


class BadName(InvalidInput):
    """Raised when a name is one that no volume or snapshot can have."""


class BadSize(InvalidInput):
    """Raised when a size is no size, not above zero, or not more than before."""


class BadImage(InvalidInput):
    """Raised when an image is missing, unreadable, no file, larger than the volume, or in a format other than raw."""


class UnknownBackend(InvalidInput):
    """Raised when a backend is not in the configuration of the service."""


class VolumeNotFound(NotFound):
    """Raised when there is no volume of that name."""


class SnapshotNotFound(NotFound):
    """Raised when a volume has no snapshot of that name."""


class UploadNotFound(NotFound):
    """Raised when a caller has no such upload: it has ended, or nothing came for too long."""


class AlreadyExists(Conflict):
    """Raised when a volume, a snapshot or a file of that name is there already."""


class WrongState(Conflict):
    """Raised when the state of a volume or snapshot forbids what was asked; `facts["state"]` is that state."""


class HasSnapshots(Conflict):
    """Raised when a volume with snapshots is to be deleted."""


class DeviceBusy(Conflict):
    """Raised when a device is still mounted or open."""


class ImageNotResponding(RequestError):
    """Raised when what an image lies on does not answer in time: a share whose server is gone, for instance."""


class NotSupported(RequestError):
    """Raised when a backend does not offer a feature, or this machine does not let it."""
