"""`ostler plugin api`: the RPC interface of a manager, and what changed in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.cli import kit
from ostler.errors import InvalidInput, NotFound, join_words
from ostler.files import make_directory, replace_file
from ostler.manager import Manager
from ostler.messaging.apicheck.interface_diff import (
    build_interface,
    compare_interfaces,
    format_interface,
    read_interface,
)
from ostler.plugins import resolve_object
from ostler.printable import printable_json

if TYPE_CHECKING:
    from ostler.plugins import PluginHost


def find_interface(host: PluginHost, name: str) -> dict[str, Any]:
    """Return the RPC interface of a manager of the installed plugins.

    Args:
        host: The plugin host, after its discovery.
        name: The manager, or the plugin that provides one; empty when there is only one.

    Raises:
        NotFound: No manager has that name.
        InvalidInput: There are several, and no name was given.
        PluginError: The manager cannot be imported, or its methods cannot be exposed.
    """
    managers = host.managers()
    chosen = [key for key in managers if not name or name in (key, host.owner("ostler_managers", key))]
    if name in managers:
        chosen = [name]
    if not chosen:
        known = join_words(sorted(managers))
        what = f"manager or plugin {name} not found" if name else "no manager is installed"
        raise NotFound(what, hint=f"available managers: {known or 'none'}", name=name)
    if len(chosen) > 1:
        raise InvalidInput(f"several managers are installed: {join_words(sorted(chosen))}", hint="give the name of one")
    return build_interface(chosen[0], resolve_object(managers[chosen[0]], Manager).cls)


def write_interface(interface: dict[str, Any], output: Path | None) -> None:
    """Write an interface to a file, or to stdout."""
    text = printable_json(format_interface(interface))
    if output is None:
        print(text, end="")  # noqa: T201 - it is a file's content
        return
    try:
        make_directory(output.absolute().parent, 0o755)
        replace_file(output.absolute(), text.encode(), mode=0o644)
    except OSError as error:
        raise InvalidInput(f"cannot write {output}: {error.strerror}") from None
    if not kit.json_wanted():
        kit.say(f"The interface of {kit.printable(interface['manager'])} was written to {kit.printable(str(output))}.")


def report_changes(interface: dict[str, Any], against: Path) -> list[str]:
    """Show what changed since a file was written; return the faults of the version."""
    reports = compare_interfaces(read_interface(against), interface)
    faults = [fault for each in reports for fault in each.faults]
    if kit.json_wanted():
        kit.emit([each._asdict() | {"changes": [change._asdict() for change in each.changes]} for each in reports])
        return faults
    lines = [str(change) for each in reports for change in each.changes]
    for line in lines or ["No changes."]:
        kit.say(kit.printable(line))
    for fault in faults:
        kit.say(kit.printable(f"wrong: {fault}"))
    return faults
