"""Writes a backup that a daemon sends to a new file, with the rights of the user who runs the command."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ostler.errors import Conflict, RemoteError, StoreUnavailable
from ostler.files import make_directory, move_file


def write_new_file(target: Path, chunks: Iterable[bytes]) -> None:
    """Create a file atomically and sync it to disk.

    Args:
        target: The file, which must not exist; its directory is created if it is missing.
        chunks: The content; the iterator is started once the file can be written.

    Raises:
        Conflict: The file exists.
        StoreUnavailable: The file cannot be written.
        RemoteError: A piece is not bytes.
        OstlerError: The iterator raised it.
    """
    part = target.with_name(f".{target.name[:200]}.{os.urandom(8).hex()}.part")
    made = False
    try:
        if os.path.lexists(target):
            raise FileExistsError
        make_directory(target.parent, 0o700)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        made = True
        with os.fdopen(descriptor, "wb") as file:
            for piece in chunks:
                if not isinstance(piece, bytes):
                    raise RemoteError("the daemon sent an invalid backup: not bytes")
                file.write(piece)
        move_file(part, target, mode=0o600)
    except FileExistsError:
        raise Conflict(
            f"{target} already exists", hint="choose another name; a backup never overwrites a file"
        ) from None
    except OSError as error:
        raise StoreUnavailable(
            f"cannot write the backup {target}: {error.strerror}",
            hint="check the free space and your permissions in the directory",
            path=target,
        ) from None
    finally:
        if made:
            with suppress(OSError):
                part.unlink()
