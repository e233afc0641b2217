"""The errors of this plugin.

RequestError
├── InvalidInput
│   ├── BadName              an invalid name
│   ├── BadSize              an invalid size
│   ├── BadImage             an image that is missing, unreadable, not a file, too large, or in another format
│   └── UnknownBackend       the backend is not in the configuration
├── NotFound
│   ├── VolumeNotFound
│   ├── SnapshotNotFound
│   └── UploadNotFound       the caller has no such upload: it has ended, or timed out
├── Conflict
│   ├── AlreadyExists        a volume, snapshot or file of that name exists
│   ├── WrongState           the state forbids it
│   ├── HasSnapshots         a volume with snapshots cannot be deleted
│   └── DeviceBusy           the device is mounted or open
├── ImageNotResponding       the file system of an image does not respond; the backend itself works
├── NotSupported             this backend, or this machine, does not support that
└── NoCapacity               (of ostler) not enough space
"""

from __future__ import annotations

from ostler import Conflict, InvalidInput, NotFound, RequestError


class BadName(InvalidInput):
    """Raised if a name is not valid for a volume or snapshot."""


class BadSize(InvalidInput):
    """Raised if a size is not valid, not above zero, or not larger than before."""


class BadImage(InvalidInput):
    """Raised if an image is missing, unreadable, not a file, larger than the volume, or not raw."""


class UnknownBackend(InvalidInput):
    """Raised if a backend is not in the configuration of the service."""


class VolumeNotFound(NotFound):
    """Raised if a volume was not found."""


class SnapshotNotFound(NotFound):
    """Raised if a snapshot was not found."""


class UploadNotFound(NotFound):
    """Raised if a caller has no such upload: it has ended, or timed out."""


class AlreadyExists(Conflict):
    """Raised if a volume, a snapshot or a file of that name already exists."""


class WrongState(Conflict):
    """Raised if the state of a volume or snapshot forbids the request; `facts["state"]` is that state."""


class HasSnapshots(Conflict):
    """Raised when a volume with snapshots is to be deleted."""


class DeviceBusy(Conflict):
    """Raised when a device is still mounted or open."""


class ImageNotResponding(RequestError):
    """Raised if the file system of an image does not respond in time, such as a share whose server is gone."""


class NotSupported(RequestError):
    """Raised if a backend does not offer a feature, or this machine does not allow it."""
