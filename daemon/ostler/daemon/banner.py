"""The text shown when a daemon is started by hand: where it listens, and what to type next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import ostler
from ostler.printable import printable_lines

if TYPE_CHECKING:
    from ostler.daemon.daemon import Daemon


def banner(daemon: Daemon, command: str) -> str:
    """Return the banner, a few lines of text.

    Args:
        daemon: The daemon that has become ready.
        command: How the command was called, `.venv/bin/ostler`.
    """
    root = daemon.paths.root
    ask = f"{command} --root {root}" if root is not None else command
    topics = [service.topic for service in daemon.services]
    facts = {
        "configuration": daemon.paths.config_file,
        "state": daemon.paths.state_dir,
        "calls": daemon.paths.rpc_address,
        "events": daemon.paths.events_address,
        "services": daemon.summary(),
    }
    lines = [f"Ostler {ostler.__version__} is ready on {daemon.host}.", ""]
    lines += [f"  {name:<14} {value}" for name, value in facts.items()]
    lines += ["", "In another terminal, type:", f"  {ask} status"]
    lines += [f"  {ask} describe {topic}" for topic in topics[:1]]
    lines += [f"  {ask} --help", "", "Press Ctrl-C to stop the daemon.", ""]
    return "\n".join(lines)


def print_banner(daemon: Daemon) -> None:
    """Write the banner to standard output; errors of a closed or full output are ignored."""
    try:
        print(printable_lines(banner(daemon, sys.argv[0])), flush=True)  # noqa: T201 - for the person at the terminal, not for the log
    except (OSError, ValueError):
        return
