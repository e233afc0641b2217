"""The text shown when a daemon is started by hand: where it listens, and what to type next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import ostler
from ostler.printable import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ostler.config.paths import Paths


def banner(paths: Paths, host: str, topics: Sequence[str], summary: str, command: str) -> str:
    """Return the banner of a daemon that has become ready, a few lines of text.

    Args:
        paths: Where its state and sockets are.
        host: The name of the host.
        topics: Its services.
        summary: Their states, in one line.
        command: How the command was called, `.venv/bin/ostler`.
    """
    ask = f"{command} --root {paths.root}" if paths.root is not None else command
    facts = {
        "configuration": paths.config_file,
        "state": paths.state_dir,
        "calls": paths.rpc_address,
        "events": paths.events_address,
        "services": summary,
    }
    lines = [f"Ostler {ostler.__version__} is ready on {host}.", ""]
    lines += [f"  {name:<14} {value}" for name, value in facts.items()]
    lines += ["", "In another terminal, type:", f"  {ask} status"]
    lines += [f"  {ask} describe {topic}" for topic in topics[:1]]
    lines += [f"  {ask} --help", "", "Press Ctrl-C to stop the daemon.", ""]
    return "\n".join(lines)


def print_banner(paths: Paths, host: str, topics: Sequence[str], summary: str) -> None:
    """Write the banner to standard output; errors of a closed or full output are ignored."""
    text = banner(paths, host, topics, summary, sys.argv[0])
    try:
        print(printable_lines(text), flush=True)  # noqa: T201 - for the person at the terminal, not for the log
    except (OSError, ValueError):
        return
