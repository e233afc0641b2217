"""Whose the daemon's directories are: what is ours is closed to others, what is somebody else's is not used."""

from __future__ import annotations

import logging
from contextlib import suppress

from ostler.config.paths import Paths
from ostler.files import Trust, check_trusted, tighten

_log = logging.getLogger(__name__)
_MODE = 0o755


def take_places(paths: Paths) -> None:
    """See to it that nobody else can write the directories of state and sockets; those that are missing come later.

    Args:
        paths: The places of the daemon.

    Raises:
        UntrustedOwner: One belongs to, or can be written by, neither root nor the user of this process.
    """
    for directory in (paths.state, paths.run):
        with suppress(OSError, RuntimeError):  # not there, somebody else's, or a loop of links
            real = directory.resolve()
            before = tighten(real, _MODE)
            if before is not None:
                _log.warning("others could write %s (its mode was %04o); now they cannot", directory, before)
    check_trusted([paths.state, paths.run], Trust.of_process(all=paths.trust_owner))
