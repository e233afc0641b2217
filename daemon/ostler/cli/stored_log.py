"""The log of the daemon as it is stored: in the journal, or in the file that its standard error goes to."""

from __future__ import annotations

import os
import stat
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from ostler.cli import invocation, kit
from ostler.errors import InvalidInput, OstlerError
from ostler.types import CONTROL_TOPIC, DaemonStatus

_UNIT = "ostler.service"
_MAX_LINE_READ = 4096
"""Bytes of a file that are read for each line that is wanted."""


def show_stored_log(lines: int, *, unsupported: Sequence[str] = ()) -> None:
    """Show the last lines of the log.

    Args:
        lines: How many.
        unsupported: Options that were given and hold for a live log alone.

    Raises:
        InvalidInput: Such options were given, or the daemon was given by its address.
        OstlerError: The log goes where it cannot be read from.
    """
    if unsupported:
        raise InvalidInput(f"{', '.join(unsupported)} needs `--follow`", hint="add -f, or omit the option")
    try:
        invocation.current_invocation().paths()  # refuses a daemon that is given by its address
    except InvalidInput as error:
        error.hint = "`ostler log --follow` shows what is logged from now on; or run it on that host"
        raise
    with kit.client() as client:
        status: DaemonStatus = client.on(type=DaemonStatus).call(CONTROL_TOPIC, "status")
    if "journal" in status.log and "standard error" not in status.log:
        _show_journal(status.pid, lines)
        return
    file = Path(f"/proc/{status.pid}/fd/2")
    try:
        found = _last_lines(file, lines)
    except OSError:
        found = None
    if found is None:
        raise OstlerError(
            f"the log goes to {status.log or 'an unknown place'}, which cannot be read from here",
            hint="`ostler log --follow` shows what is logged from now on",
        )
    for line in found:
        print(kit.printable(line))  # noqa: T201 - the command's output


def _last_lines(file: Path, lines: int) -> list[str] | None:
    """Return the last lines of a regular file; None for anything else."""
    if not stat.S_ISREG(file.stat().st_mode):
        return None
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - lines * _MAX_LINE_READ))
        return [line.decode(errors="replace").rstrip("\n") for line in deque(opened, lines)]


def _show_journal(pid: int, lines: int) -> None:
    """Run journalctl for the unit of a process, or for the process if it belongs to none."""
    words = ["journalctl", "--lines", str(lines), *([] if kit.on_terminal() else ["--no-pager"]), *_journal_match(pid)]
    if kit.json_wanted():
        words += ["--output", "json"]
    try:
        code = subprocess.run(words, check=False).returncode
    except OSError as error:
        raise OstlerError(f"cannot run journalctl: {error.strerror}", hint="use `ostler log --follow`") from None
    if code:
        raise OstlerError(f"journalctl failed with exit code {code}")


def _journal_match(pid: int) -> list[str]:
    try:
        path = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").strip().rpartition(":")[2]
    except OSError:
        return ["--unit", _UNIT]
    unit = next((part for part in reversed(path.split("/")) if part.endswith(".service")), "")
    return ["--unit", unit] if unit else [f"_PID={pid}"]
