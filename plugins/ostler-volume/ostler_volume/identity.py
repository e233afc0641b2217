"""The identity of a backend: an id in a file in its root, and the same id in the database.

A directory that is empty, that is another one, or whose disk is not mounted must not pass for the backend: all its
volumes would look lost, and new ones would go to the wrong disk.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ostler import DriverError, Json

FILE = ".ostler-backend"
KEY = "identity"
"""The key of a driver's own key-value store where its identity is."""
RECORDS_KEY = "records"
"""The key that is true while volumes are recorded on the backend."""
_LENGTH = 32
_READ_LIMIT = 256


class Identity(NamedTuple):
    """What is remembered of a backend: its id, and the mount point that its directory was below."""

    id: str
    mount: str = "/"

    def to_json(self) -> Json:
        """Return it as it is kept in the database."""
        return {"id": self.id, "mount": self.mount}


def identity_from(value: Json) -> Identity | None:
    """Return an identity that was kept in the database, None when there is none that can be read."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return None
    return Identity(str(value["id"]), str(value.get("mount") or "/"))


def read_id(path: Path) -> str:
    """Return the id in a directory, empty when there is none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        descriptor = os.open(path / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        text = os.read(descriptor, _READ_LIMIT).decode("ascii", "replace")
    finally:
        os.close(descriptor)
    return text.partition("\n")[0].strip()


def write_id(path: Path) -> str:
    """Give a directory a new id and return it; it is safe on the disk then.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    number = os.urandom(_LENGTH // 2).hex()
    partial = path / f"{FILE}.partial"
    text = f"{number}\nOstler recognises this backend by the line above: keep this file with its volumes.\n"
    try:
        partial.unlink(missing_ok=True)
        with partial.open("x", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path / FILE)
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
    path: Path, name: str, known: Identity | None, *, has_records: bool, mounted: bool | None, volumes: Path
) -> None:
    """Raise when a directory is not the backend it was; nothing is written.

    Args:
        path: The directory.
        name: The name of the backend.
        known: What is remembered of it, None at its first use.
        has_records: Whether volumes are recorded on it; without any, another directory may take its place.
        mounted: The option: whether its disk must be mounted; None for "as it was before".
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
            f"not the backend it was: {where}{why}; its records are left alone",
            hint="mount its disk or correct `path`, it is tried again automatically; if this is the right directory "
            f"now: `ostler volume accept-backend {name}`",
            path=path,
        )


def _is_below(path: Path, mount: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(mount)


def _difference(path: Path, known: str, found: str) -> str:
    if found and found != known:
        return f"it has the identity {found[:_LENGTH]}, and {known} is expected"
    if not path.is_dir():
        return "the directory does not exist"
    if found:
        return "the directory of its volumes is missing"
    empty = all(each.name == "lost+found" for each in list(path.iterdir()))
    return "the directory is empty" if empty else f"the file {FILE} is missing in it"
