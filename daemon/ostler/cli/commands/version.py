"""`ostler version`: the versions of the command and of the daemon."""

from __future__ import annotations

import sys

import ostler
from ostler.cli import kit
from ostler.cli.results import Versions
from ostler.errors import DaemonNotRunning, OstlerError
from ostler.types import CONTROL_TOPIC, DaemonStatus

app = kit.app(group=False)


@app.command()
@kit.view
@kit.shows(Versions)
def version() -> None:
    """Show the versions of this command and of the daemon."""
    running, why = _daemon_version()
    kit.show_fields(
        Versions(
            command=ostler.__version__,
            daemon=running or (None if kit.json_wanted() else why),
            python=".".join(map(str, sys.version_info[:3])),
        )
    )


def _daemon_version() -> tuple[str, str]:
    """Return the version of the daemon, or an empty text and why it is not known: the command's is shown anyhow."""
    try:
        with kit.client() as client:
            status: DaemonStatus = client.on(type=DaemonStatus).call(CONTROL_TOPIC, "status")
    except DaemonNotRunning:
        return "", "not running"
    except OstlerError as error:
        return "", f"unknown: {error.message}"
    return status.version, ""
