"""`ostler plugin api`: what a manager offers over RPC, and what changed in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.cli import kit
from ostler.errors import InvalidInput, NotFound, joined
from ostler.printable import printable_json

if TYPE_CHECKING:
    from ostler.plugins import PluginHost


def find(host: PluginHost, name: str) -> dict[str, Any]:
    """Return the RPC interface of a manager of the installed plugins.

    Args:
        host: The plugin host, after its discovery.
        name: The manager, or the plugin that brings one; empty when there is only one.

    Raises:
        NotFound: There is none of that name.
        InvalidInput: There are several, and it is not said which.
        PluginError: The manager cannot be imported, or cannot be offered.
    """
    from ostler.manager import Manager
    from ostler.messaging.interface import interface_of
    from ostler.plugins import resolve

    managers = host.managers()
    chosen = [key for key in managers if not name or name in (key, host.owner("ostler_managers", key))]
    if name in managers:
        chosen = [name]
    if not chosen:
        known = joined(sorted(managers))
        raise NotFound(f"no manager or plugin {name or 'at all'} is installed", hint=f"managers: {known}", name=name)
    if len(chosen) > 1:
        raise InvalidInput(f"there are several managers: {joined(sorted(chosen))}", hint="say which")
    return interface_of(chosen[0], resolve(managers[chosen[0]], Manager).cls)


def write(interface: dict[str, Any], output: Path | None) -> None:
    """Write an interface to a file, or to the screen."""
    from ostler.files import make_directory, replace_file
    from ostler.messaging.interface import as_text

    text = printable_json(as_text(interface))
    if output is None:
        print(text, end="")  # noqa: T201 - it is a file's content
        return
    try:
        make_directory(output.absolute().parent, 0o755)
        replace_file(output.absolute(), text.encode(), mode=0o644)
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written: {error.strerror}") from None
    if not kit.json_wanted():
        kit.say(f"The interface of {kit.printable(interface['manager'])} is in {kit.printable(str(output))}.")


def report(interface: dict[str, Any], against: Path) -> list[str]:
    """Show what changed since a file was written; return what is wrong with the version."""
    from ostler.messaging.interface import read_interface
    from ostler.messaging.interface_changes import compare

    reports = compare(read_interface(against), interface)
    faults = [fault for each in reports for fault in each.faults]
    if kit.json_wanted():
        kit.emit([each._asdict() | {"changes": [change._asdict() for change in each.changes]} for each in reports])
        return faults
    lines = [str(change) for each in reports for change in each.changes]
    for line in lines or ["Nothing has changed."]:
        kit.say(kit.printable(line))
    for fault in faults:
        kit.say(kit.printable(f"wrong: {fault}"))
    return faults
