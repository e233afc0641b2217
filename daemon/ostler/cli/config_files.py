"""Files of the configuration that commands change: under a lock, whole or not at all, and not through a link."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ostler.cli import invocation
from ostler.config.toml_parser import MAX_FILE_SIZE
from ostler.errors import Busy, OstlerError
from ostler.files import make_directory, read_regular, replace_file

SCHEMA_FILE_NAME = "ostler.schema.json"
"""The JSON Schema of the configuration, next to `ostler.toml`; editors find it by the line `#:schema` of a file."""
BOM = b"\xef\xbb\xbf"
_LOCK_TIMEOUT = 60.0
_LOCK_RETRY_DELAY = 0.02


class FileNotEditable(OstlerError):
    """Raised if a file of the configuration is not changed because it is a link, or this user may not write it."""


class EditedFile(NamedTuple):
    """The content of a file before and after; None before if there was no file."""

    before: bytes | None
    content: bytes


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold the lock of a configuration directory; the directory itself is locked, so that no lock file is left.

    Raises:
        Busy: Another process holds it for a minute.
        OSError: The directory cannot be made or opened.
    """
    make_directory(directory, 0o755)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise Busy(f"{directory} is locked by another `ostler config set`", hint="`lsof` shows the process")
            time.sleep(_LOCK_RETRY_DELAY)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_editable(file: Path) -> bytes | None:
    """Return the content of a file that is going to be edited; None if it is not there.

    Raises:
        FileNotEditable: It or its directory is a link, or this user may not write it.
        OSError: It cannot be read, is larger than a file of the configuration may be, or is not a regular file.
    """
    for path in (file.parent, file):
        if path.is_symlink():
            raise FileNotEditable(
                f"{path} is a symbolic link to {path.readlink()}; nothing was written",
                hint="edit the file where the link leads, in what manages it, or choose another with --file",
            )
    try:
        content = read_regular(file, MAX_FILE_SIZE, follow=False).data
        os.close(os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise FileNotEditable(
            f"{file} cannot be edited: {error.strerror}", hint="run this as its owner, or choose another with --file"
        ) from None
    return content


def schema_line(file: Path) -> bytes:
    """Return the line that names the schema to editors, for the top of a file; empty if there is no schema.

    Args:
        file: A file of the configuration.
    """
    schema = invocation.current_invocation().paths().config_file.with_name(SCHEMA_FILE_NAME)
    if not schema.exists() or not file.is_relative_to(schema.parent):
        return b""
    name = os.path.relpath(schema, file.parent)
    return f"#:schema {name if name.startswith('.') else f'./{name}'}\n".encode()


def replace_edited(file: Path, edited: EditedFile) -> None:
    """Replace a file atomically, if its content is still the one that was edited; the lock is held.

    Raises:
        Busy: Another program has changed it.
        FileNotEditable: It is a link, or this user may not write it.
        OSError: It cannot be written.
    """
    if read_editable(file) != edited.before:  # editors take no lock
        raise Busy(f"{file} was changed by another program meanwhile; nothing was written", hint="try it again")
    if edited.content != edited.before:
        make_directory(file.parent, 0o755)
        replace_file(file, edited.content, mode=0o644)
