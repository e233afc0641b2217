"""Imports and checks the plugins of a set in a process of its own, before the set is used.

Run as `python -m ostler.cli.plugin_installation.verification DIRECTORY`; prints a JSON list of `VerifiedPlugin`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import msgspec

from ostler.errors import PluginError
from ostler.time_text import format_seconds

_TIME_LIMIT = 120.0
"""Seconds for the import and the checks of all plugins."""
_MODULE = "ostler.cli.plugin_installation.verification"
_UNCHANGED = "nothing was changed"
_MARK = "ostler-verification: "


class VerifiedPlugin(msgspec.Struct, frozen=True):
    """A plugin of a set: its name, its distribution, and what is wrong with it."""

    name: str
    distribution: str
    faults: list[str]


def verify_packages(packages: Path) -> list[VerifiedPlugin]:
    """Return what a directory of packages provides to Ostler, checked as by `ostler plugin check`.

    Args:
        packages: The directory.

    Raises:
        PluginError: A plugin ends or kills the process that imports it, or does not return.
    """
    # -P: nothing of the current directory is imported. Files instead of pipes: what a plugin leaves running would hold
    # these open.
    command = [sys.executable, "-P", "-m", _MODULE, str(packages)]
    with TemporaryFile() as out, TemporaryFile() as err:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            code = child.wait(_TIME_LIMIT)
        except subprocess.TimeoutExpired:
            raise PluginError(
                f"the plugins cannot be imported: that took more than {format_seconds(_TIME_LIMIT)}", hint=_UNCHANGED
            ) from None
        finally:
            # Before the child is collected, whose number the group has; it may be collected by `wait` already, then
            # the number belongs to the group as long as something of it is left.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        lines = [line.removeprefix(_MARK) for line in _read_lines(out) if line.startswith(_MARK)]
        if code != 0 or len(lines) != 1:
            raise PluginError(f"the plugins cannot be imported: {_death_of(code, _read_lines(err))}", hint=_UNCHANGED)
    return msgspec.json.decode(lines[0], type=list[VerifiedPlugin])


def _read_lines(file: IO[bytes]) -> list[str]:
    file.seek(0)
    return file.read().decode(errors="replace").splitlines()


def _death_of(code: int, errors: Sequence[str]) -> str:
    if code < 0:
        name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
        return f"the process that did so was killed by {name}"
    last = [line.strip() for line in errors if line.strip()][-1:]
    return f"the process that did so exited with code {code}" + "".join(f" ({line})" for line in last)


def main(arguments: Sequence[str]) -> None:
    """Print what is provided by the packages of the directory, and what is wrong with it."""
    # 70 ms: only in this process.
    from ostler.cli.plugin_check import check_plugins
    from ostler.cli.plugin_commands import ENTRY_POINT_GROUP as COMMANDS
    from ostler.cli.plugin_commands import PluginCommands
    from ostler.cli.without_daemon import suppress_logging
    from ostler.errors import OstlerError
    from ostler.plugins import PluginHost
    from ostler.plugins.discovery import installed_plugins

    (packages,) = arguments
    sys.path.append(packages)
    found = installed_plugins()
    own = {plugin.name: plugin.distribution for plugin in found if _is_below(plugin.path, packages)}
    host = PluginHost(found)
    with suppress_logging():
        host.discover()
        results = check_plugins(host)
    verified = [VerifiedPlugin(each.plugin, own[each.plugin], each.faults) for each in results if each.plugin in own]
    commands = PluginCommands(())
    for point in installed_plugins(COMMANDS):
        if not _is_below(point.path, packages):
            continue
        faults = []
        try:
            commands.load(point.name)
        except OstlerError as error:
            faults.append(str(error))
        verified.append(VerifiedPlugin(f"command {point.name}", point.distribution, faults))
    sys.stdout.write(f"\n{_MARK}{msgspec.json.encode(verified).decode()}\n")
    sys.stdout.flush()


def _is_below(path: str, directory: str) -> bool:
    return Path(path).parent == Path(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # threads that a plugin has started do not keep this process
