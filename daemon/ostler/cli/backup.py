"""Writing what a daemon sends to a new file, with the rights of whoever runs the command."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ostler.errors import Conflict, RemoteError, StoreUnavailable
from ostler.files import make_directory, move_file


def write_new(target: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that is not there yet, whole or not at all, safe on the disk.

    Args:
        target: The file; its directory is made if need be.
        pieces: What it is to hold; begun when the file can be written.

    Raises:
        Conflict: The file is there.
        StoreUnavailable: It cannot be written.
        RemoteError: A piece is something else.
        OstlerError: What the pieces raised.
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
            for piece in pieces:
                if not isinstance(piece, bytes):
                    raise RemoteError("the daemon sent a backup that is not made of bytes")
                file.write(piece)
        move_file(part, target, mode=0o600)
    except FileExistsError:
        raise Conflict(f"{target} is there already", hint="choose another name; a backup never overwrites") from None
    except OSError as error:
        raise StoreUnavailable(
            f"the backup {target} cannot be written: {error.strerror}",
            hint="check the free space and your rights in the directory",
            path=target,
        ) from None
    finally:
        if made:
            with suppress(OSError):
                part.unlink()
