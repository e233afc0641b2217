"""Checks of a manager's RPC interface: against the last release, and against its typed client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.errors import InvalidInput
from ostler.messaging.apicheck.interface_diff import (
    ApiChange,
    build_interface,
    compare_interfaces,
    format_interface,
    read_interface,
)
from ostler.messaging.apicheck.type_compatibility import TypeCompatibility, TypeSchema
from ostler.version_numbers import parse_version

if TYPE_CHECKING:
    from ostler.messaging.clients.api import RpcApi, Stub


def check_rpc_api(manager: type, released: str | Path) -> list[ApiChange]:
    """Compare a manager's RPC interface with that of the last release, and check that its version reflects the changes.

    Removals, new required arguments, narrower types, raised roles and other results need a new major version; additions
    need a new minor version; changed docstrings need none.

    Args:
        manager: The manager class.
        released: The file that `ostler plugin api NAME --output FILE` wrote for that release. For a directory, the file
            with the highest version in its name: `lamp-1.10.json` after `lamp-1.9.json`.

    Returns:
        The changes, also if the version is correct.

    Raises:
        AssertionError: The version does not reflect the changes, or an addition is not marked with its version; lists
            each change, the callers that it breaks, and the required version.
        InvalidInput: The file was not found.
        ContractError: A method of the manager cannot be exposed.
    """
    file = _newest_file(Path(released))
    old = read_interface(file)
    new = build_interface(str(old["manager"]), manager)
    reports = compare_interfaces(old, new)
    changes = [change for report in reports for change in report.changes]
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        listed = "\n".join(f"  {change}" for change in changes)
        raise AssertionError(f"since {file}:\n{listed}\n" + "\n".join(faults))
    if not changes and format_interface(old["namespaces"]) != format_interface(new["namespaces"]):
        raise AssertionError(
            f"{file} was written by another version of Ostler; write it again with `ostler plugin api`"
        )
    return changes


def check_rpc_client(api: type[RpcApi], manager: type) -> None:
    """Check that a typed client matches its manager: methods, versions, arguments and results.

    The client may omit methods and arguments, and be of an older version.

    Args:
        api: The `RpcApi` class.
        manager: The manager class.

    Raises:
        AssertionError: It does not match; lists each difference.
    """
    whole = build_interface(api.topic, manager)
    space = whole["namespaces"].get(api.namespace)
    if space is None:
        raise AssertionError(f"{manager.__name__} has no namespace {api.namespace!r}")
    faults = []
    if (parse_version(api.rpc_version) or (0, 0)) > (parse_version(space["rpc_version"]) or (0, 0)):
        faults.append(f"{api.__name__} has version {api.rpc_version}, {manager.__name__} has {space['rpc_version']}")
    for name, stub in sorted(api.stubs.items()):
        where = f"{api.__name__}.{name}"
        method = space["methods"].get(name)
        faults += (
            [f"{where} is not a method of {manager.__name__}"]
            if method is None
            else _differences(where, stub, method, whole["types"])
        )
    if faults:
        raise AssertionError("\n".join(faults))


def _differences(where: str, stub: Stub[..., Any], method: dict[str, Any], types: dict[str, Any]) -> list[str]:
    shapes, facts = TypeSchema(), stub.signature
    result = shapes.schema_of(facts.result_type)
    arguments = {name: shapes.schema_of(stub.argument_type(name)) for name in sorted(facts.argument_names)}
    found = []
    if stub.version != method["version"]:
        found.append(f"{where} has version {stub.version}, the method has {method['version']}")
    if facts.is_streaming != method["streams"]:
        found.append(f"{where} {'is' if facts.is_streaming else 'is not'} a stream, unlike the method")
    for name, shape in arguments.items():
        known = method["arguments"].get(name)
        if known is None:
            found.append(f"{where} has an argument {name}, which the method does not have")
            continue
        if known["required"] and name not in facts.required:
            found.append(f"{where} has an optional argument {name}, which the method requires")
        found += TypeCompatibility(types, shapes.types, complete=True).find_incompatibilities(
            known["type"], shape, f"the argument {name} of {where}"
        )
    missing = [name for name, known in method["arguments"].items() if known["required"] and name not in arguments]
    found += [f"{where} lacks the argument {name}" for name in missing]
    return found + TypeCompatibility(shapes.types, types, complete=True).find_incompatibilities(
        result, method["result"], f"the result of {where}"
    )


def _newest_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = {parse_version(file.stem.rpartition("-")[2]): file for file in path.glob("*.json")}
    versions = [version for version in found if version is not None]
    if not versions:
        raise InvalidInput(f"no file in {path} has a version in its name", hint="use a name such as lamp-1.0.json")
    return found[max(versions)]
