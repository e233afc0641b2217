"""The composition root: builds every part, starts and stops them in order, answers signals, reloads, watches itself.

`main` is `ostler run`, `core` the daemon, `messages` its sockets, `control` what it answers to the command, `reload`
SIGHUP, `watchdog` the evidence for systemd, `check` the reading of a configuration, `lastresort` the hard exit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.config.paths import Paths


def run_daemon(paths: Paths, overrides: Sequence[str] = (), log_level: str | None = None) -> int:
    """Run a daemon; see `ostler.daemon.main.run_daemon`."""
    from ostler.daemon.main import run_daemon as run

    return run(paths, overrides, log_level)
