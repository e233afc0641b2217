"""The identity of a backend: an id in a file in its directory, and the same id in the database.

A directory that is empty, another one, or whose disk is not mounted must not be mistaken for the backend: all its
volumes would look lost, and new ones would be created on the wrong disk.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ostler import DriverError, Json

IDENTITY_FILE = ".ostler-backend"
IDENTITY_KEY = "identity"
"""The key of the identity in a driver's key-value store."""
RECORDS_KEY = "records"
"""The key that is true while volumes are recorded on the backend."""
_ID_LENGTH = 32
_READ_LIMIT = 256


class BackendIdentity(NamedTuple):
    """The stored identity of a backend: its id, and the mount point of its directory."""

    id: str
    mount: str = "/"

    def to_json(self) -> Json:
        """Return it in the form of the database."""
        return {"id": self.id, "mount": self.mount}


def identity_from(value: Json) -> BackendIdentity | None:
    """Return an identity from the database, None if there is none or it is invalid."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return None
    return BackendIdentity(str(value["id"]), str(value.get("mount") or "/"))


def read_id(path: Path) -> str:
    """Return the id in a directory, empty without one.

    Raises:
        OSError: It cannot be read.
    """
    try:
        descriptor = os.open(path / IDENTITY_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        text = os.read(descriptor, _READ_LIMIT).decode("ascii", "replace")
    finally:
        os.close(descriptor)
    return text.partition("\n")[0].strip()


def write_id(path: Path) -> str:
    """Write a new id to a directory, sync it to disk and return it.

    Raises:
        OSError: It cannot be written; the file was removed.
    """
    number = os.urandom(_ID_LENGTH // 2).hex()
    partial = path / f"{IDENTITY_FILE}.partial"
    text = f"{number}\nOstler identifies this backend by the line above: keep this file together with the volumes.\n"
    try:
        partial.unlink(missing_ok=True)
        with partial.open("x", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path / IDENTITY_FILE)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return number


def check_identity(
    path: Path, name: str, known: BackendIdentity | None, *, has_records: bool, mounted: bool | None, volumes: Path
) -> None:
    """Raise if a directory is not the backend it was; nothing is written.

    Args:
        path: The directory.
        name: The name of the backend.
        known: Its stored identity, None at the first use.
        has_records: Whether volumes are recorded on it; without any, another directory is accepted.
        mounted: The option: whether its disk must be mounted; None to require it if it was mounted before.
        volumes: The directory with the volumes in it.

    Raises:
        DriverError: It is not.
        OSError: It cannot be read.
    """
    if known is None:
        return
    found = read_id(path)
    if found == known.id and (not has_records or volumes.is_dir()):
        return
    not_mounted = known.mount != "/" and _is_below(path, known.mount) and not os.path.ismount(known.mount)
    if has_records or (not_mounted and mounted is not False):
        why = f"{known.mount} is not mounted" if not_mounted else _difference(path, known.id, found)
        where = "" if not_mounted and known.mount == str(path) else f"{path}: "
        raise DriverError(
            f"not the backend it was: {where}{why}; its records are not changed",
            hint="mount its disk or correct `path`, it is retried automatically; if this is the right directory, run "
            f"`ostler volume accept-backend {name}`",
            path=path,
        )


def _is_below(path: Path, mount: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(mount)


def _difference(path: Path, known: str, found: str) -> str:
    if found and found != known:
        return f"it has the identity {found[:_ID_LENGTH]}, and {known} is expected"
    if not path.is_dir():
        return "the directory does not exist"
    if found:
        return "the directory of its volumes is missing"
    empty = all(each.name == "lost+found" for each in list(path.iterdir()))
    return "the directory is empty" if empty else f"the file {IDENTITY_FILE} is missing in it"
