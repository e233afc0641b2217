"""`ostler version`: the versions of the command and of the daemon."""

from __future__ import annotations

import sys

import ostler
from ostler.cli import kit
from ostler.errors import DaemonNotRunning
from ostler.types import CONTROL_TOPIC, DaemonStatus, Json

app = kit.app(group=False)


@app.command()
def version() -> None:
    """Show the versions of this command and of the daemon."""
    running = _daemon_version()
    found: dict[str, Json] = {
        "command": ostler.__version__,
        "daemon": running or (None if kit.json_wanted() else "not running"),
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    kit.show_fields(found)


def _daemon_version() -> str:
    """Return the version of the daemon; empty when none is running."""
    try:
        with kit.client() as client:
            status: DaemonStatus = client.on(type=DaemonStatus).call(CONTROL_TOPIC, "status")
    except DaemonNotRunning:
        return ""
    return status.version
