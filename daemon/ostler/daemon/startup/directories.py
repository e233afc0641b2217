"""Ownership of the daemon's directories: ours are closed to others, those of other users are not used."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ostler.config.paths import Paths
from ostler.errors import MessagingError
from ostler.files import Trust, check_trusted, make_directory, restrict_mode

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)
_DIRECTORY_MODE = 0o755


def secure_directories(paths: Paths) -> None:
    """Ensure that no other user can write to the state and socket directories; missing ones are created later.

    What is not a directory is left as it is: who opens it reports that.

    Args:
        paths: The places of the daemon.

    Raises:
        UntrustedOwner: One belongs to, or is writable by, a user other than root and the user of this process.
    """
    # `Path.is_dir` of Python 3.11 to 3.13 raises where a directory above may not be entered.
    directories = [each for each in (paths.state_dir, paths.runtime_dir) if os.path.isdir(each)]  # noqa: PTH112
    for directory in directories:
        with suppress(OSError, RuntimeError):  # removed meanwhile, or of another user
            real = directory.resolve()
            before = restrict_mode(real, _DIRECTORY_MODE)
            if before is not None:
                _log.warning("%s was writable by other users (mode %04o); its mode has been fixed", directory, before)
    check_trusted(directories, Trust.of_process(all=paths.trust_owner))


def make_runtime_directory(directory: Path) -> None:
    """Create the directory of the sockets, which others can enter but not change, if it does not exist.

    Raises:
        MessagingError: It cannot be created.
    """
    try:
        make_directory(directory, 0o755)
    except OSError as error:
        raise MessagingError(
            f"cannot create the socket directory {directory}: {error.strerror}",
            hint="create it for the daemon's user, or choose another one with `--root`",
            path=directory,
        ) from None
