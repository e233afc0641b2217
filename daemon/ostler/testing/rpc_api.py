"""Checks of a manager's RPC interface: against the last release, and against its typed client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.errors import InvalidInput
from ostler.messaging.fits import Fits
from ostler.messaging.interface import as_text, interface_of, read_interface
from ostler.messaging.interface_changes import ApiChange, compare
from ostler.messaging.rpc.shapes import Shapes
from ostler.version_numbers import parse_version

if TYPE_CHECKING:
    from ostler.messaging.api import Remote, RpcApi


def check_rpc_api(manager: type, released: str | Path) -> list[ApiChange]:
    """Compare a manager's RPC interface with that of the last release, and hold its version to what has changed.

    Removals, new required arguments, types that take less, raised roles and other results ask for a new major version;
    whatever is added asks for a new minor one; words of docstrings for none.

    Args:
        manager: The manager class.
        released: The file that `ostler plugin api NAME --output FILE` wrote for that release. Of a folder the file with
            the highest version in its name is taken: `lamp-1.10.json` after `lamp-1.9.json`.

    Returns:
        What changed, also when the version is right.

    Raises:
        AssertionError: The version does not say what has changed, or something new is not marked with its version;
            names each change, whom it breaks, and the version that is due.
        InvalidInput: There is no such file.
        ContractError: Something of the manager cannot be offered.
    """
    file = _newest(Path(released))
    old = read_interface(file)
    new = interface_of(str(old["manager"]), manager)
    reports = compare(old, new)
    changes = [change for report in reports for change in report.changes]
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        listed = "\n".join(f"  {change}" for change in changes)
        raise AssertionError(f"since {file}:\n{listed}\n" + "\n".join(faults))
    if not changes and as_text(old["namespaces"]) != as_text(new["namespaces"]):
        raise AssertionError(f"{file} was written by another Ostler; write it anew with `ostler plugin api`")
    return changes


def check_rpc_client(api: type[RpcApi], manager: type) -> None:
    """Look whether a typed client says the same as its manager: methods, versions, arguments and results.

    The client may leave methods and arguments out, and be of an older version.

    Args:
        api: The `RpcApi` class.
        manager: The manager class.

    Raises:
        AssertionError: It does not; names each difference.
    """
    whole = interface_of(api.topic, manager)
    space = whole["namespaces"].get(api.namespace)
    if space is None:
        raise AssertionError(f"{manager.__name__} has no namespace {api.namespace!r}")
    faults = []
    if (parse_version(api.rpc_version) or (0, 0)) > (parse_version(space["rpc_version"]) or (0, 0)):
        faults.append(f"{api.__name__} is of version {api.rpc_version}, {manager.__name__} of {space['rpc_version']}")
    for name, stub in sorted(api.stubs.items()):
        where = f"{api.__name__}.{name}"
        method = space["methods"].get(name)
        faults += (
            [f"{where} is no method of {manager.__name__}"]
            if method is None
            else _differences(where, stub, method, whole["types"])
        )
    if faults:
        raise AssertionError("\n".join(faults))


def _differences(where: str, stub: Remote[..., Any], method: dict[str, Any], types: dict[str, Any]) -> list[str]:
    shapes, facts = Shapes(), stub.facts
    result = shapes.of(facts.result)
    arguments = {name: shapes.of(stub.argument_type(name)) for name in sorted(facts.names)}
    found = []
    if stub.version != method["version"]:
        found.append(f"{where} is of version {stub.version}, the method of {method['version']}")
    if facts.streams != method["streams"]:
        found.append(f"{where} {'yields' if facts.streams else 'does not yield'}, the method is otherwise")
    for name, shape in arguments.items():
        known = method["arguments"].get(name)
        if known is None:
            found.append(f"{where} has an argument {name}, the method has none of that name")
            continue
        if known["required"] and name not in facts.required:
            found.append(f"{where} need not be given {name}, the method must be")
        found += Fits(types, shapes.types, complete=True).misfits(
            known["type"], shape, f"the argument {name} of {where}"
        )
    missing = [name for name, known in method["arguments"].items() if known["required"] and name not in arguments]
    found += [f"{where} lacks the argument {name}" for name in missing]
    return found + Fits(shapes.types, types, complete=True).misfits(result, method["result"], f"the result of {where}")


def _newest(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = {parse_version(file.stem.rpartition("-")[2]): file for file in path.glob("*.json")}
    versions = [version for version in found if version is not None]
    if not versions:
        raise InvalidInput(f"no file in {path} has a version in its name", hint="name it for instance lamp-1.0.json")
    return found[max(versions)]
