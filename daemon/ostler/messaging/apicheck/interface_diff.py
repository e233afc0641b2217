"""What a manager offers over RPC as plain data, written to a file with each release, and what changed since then.

A change says whom it breaks and which version it requires.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ostler.errors import InvalidInput
from ostler.files import read_bounded
from ostler.messaging.apicheck.type_compatibility import TypeCompatibility, Types, TypeSchema, removed_fields
from ostler.messaging.interface.introspection import ExposedMethod, list_exposed
from ostler.types import ROLE_ORDER, Role
from ostler.version_numbers import parse_version

FORMAT_VERSION = 1
"""The version of these files."""
_MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes of one of these files."""


def build_interface(name: str, manager: type) -> dict[str, Any]:
    """Return the RPC interface of a manager class. Nothing of the class is run.

    Args:
        name: The name under which the manager is registered.
        manager: The class.

    Raises:
        ContractError: Something of it cannot be offered.
    """
    shapes = TypeSchema()
    spaces: dict[str, Any] = {"": _empty_namespace(manager)}
    for namespace, cls in getattr(manager, "namespaces", {}).items():
        spaces[namespace] = _empty_namespace(cls)
    for offer in list_exposed(name, manager):
        spaces[offer.namespace]["methods"][offer.name.rpartition(".")[2]] = _method_entry(offer, shapes)
    return {"format": FORMAT_VERSION, "manager": name, "namespaces": spaces, "types": shapes.types}


def format_interface(interface: dict[str, Any]) -> str:
    """Return an interface as it is kept: JSON with sorted keys, so that a change is a change of few lines."""
    packed = msgspec.json.encode(interface, order="sorted")
    return msgspec.json.format(packed, indent=2).decode() + "\n"


def read_interface(file: Path) -> dict[str, Any]:
    """Return the interface that a file holds.

    Raises:
        InvalidInput: It cannot be read, or is no such file.
    """
    try:
        found = msgspec.json.decode(read_bounded(file, _MAX_FILE_SIZE), type=dict[str, Any])
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read: {error.strerror}", hint="write it with `ostler plugin api NAME --write FILE`"
        ) from None
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file} is not a valid manager interface: {error}") from None
    if found.get("format") != FORMAT_VERSION or "namespaces" not in found:
        raise InvalidInput(
            f"{file} is not a manager interface, or has another version", hint="write it again with `ostler plugin api`"
        )
    return found


def _as_file_value(value: Any) -> Any:
    """Return a default as it will be read from the file."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError):  # what messages know and JSON does not
        return repr(value)


def _empty_namespace(cls: type) -> dict[str, Any]:
    return {"rpc_version": str(getattr(cls, "rpc_version", "1.0")), "methods": {}}


def _method_entry(offer: ExposedMethod, shapes: TypeSchema) -> dict[str, Any]:
    signature, arguments = offer.signature, {}
    for argument in signature.arguments:
        found: dict[str, Any] = {"type": shapes.schema_of(argument.type), "required": argument.is_required}
        if argument.name in signature.secrets:
            found["secret"] = True
        elif not argument.is_required and argument.default is not msgspec.UNSET:
            found["default"] = _as_file_value(argument.default)
        arguments[argument.name] = found
    return {
        "version": offer.exposure.version,
        "role": str(offer.exposure.role),
        "changes": offer.exposure.changes,
        "streams": signature.is_streaming,
        "arguments": arguments,
        "result": shapes.schema_of(signature.result),
    }


OLD_CLIENTS = "old clients of the new service"
NEW_CLIENTS = "new clients of an old service"
MAJOR, MINOR, NONE = "major", "minor", "none"


class ApiChange(NamedTuple):
    """One change: what it is, whom it breaks (nobody when empty), and what of the version it asks for."""

    what: str
    breaks: tuple[str, ...]
    required_bump: str

    def __str__(self) -> str:
        whom = f"breaks {' and '.join(self.breaks)}" if self.breaks else "breaks no client"
        due = f"requires a {self.required_bump} version" if self.required_bump != NONE else "requires no new version"
        return f"{self.what}: {whom}; {due}"


class ApiReport(NamedTuple):
    """The changes of one manager or namespace since a release.

    `required_bump` is the lowest version that it may have now, `offered` the one it has, `faults` what is wrong with
    it.
    """

    name: str
    released: str
    offered: str
    required_bump: str
    changes: list[ApiChange]
    faults: list[str]


def compare_interfaces(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[ApiReport]:
    """Return what changed between two interfaces, as `build_interface` makes them; a report for each namespace.

    Args:
        old: That of the last release.
        new: That of now.
    """
    reports = []
    for namespace in sorted({*old["namespaces"], *new["namespaces"]}):
        name = f"{new['manager']}.{namespace}" if namespace else str(new["manager"])
        before, after = old["namespaces"].get(namespace), new["namespaces"].get(namespace)
        if before is None:
            change = ApiChange(f"{name} was added", (NEW_CLIENTS,), NONE)
            reports.append(ApiReport(name, "", after["rpc_version"], "", [change], []))
        elif after is None:
            change = ApiChange(f"{name} was removed", (OLD_CLIENTS,), MAJOR)
            fault = f"{name} was removed, but clients still call it: keep it until the manager has a new major version"
            kept = (
                parse_version(old["namespaces"][""]["rpc_version"]),
                parse_version(new["namespaces"][""]["rpc_version"]),
            )
            faults = [fault] if kept[0] and kept[1] and kept[0][0] == kept[1][0] else []
            reports.append(ApiReport(name, before["rpc_version"], "", "", [change], faults))
        else:
            reports.append(_make_report(name, before, after, old["types"], new["types"]))
    return reports


def _make_report(name: str, old: Any, new: Any, old_types: Types, new_types: Types) -> ApiReport:
    released, offered = old["rpc_version"], new["rpc_version"]
    changes = list(_compare_methods(name, old, new, old_types, new_types))
    due = _version_problem(released, changes)
    faults = []
    if (parse_version(offered) or (0, 0)) < (parse_version(due) or (0, 0)):
        faults.append(f'{name} has version {offered}, but its changes require {due}: set `rpc_version = "{due}"`')
    if (parse_version(offered) or (0, 0))[0] == (parse_version(released) or (0, 0))[0]:
        faults += _unmarked_methods(name, old, new, released, due)
    return ApiReport(name, released, offered, due, changes, faults)


def _version_problem(released: str, changes: list[ApiChange]) -> str:
    major, minor = parse_version(released) or (1, 0)
    asked = {change.required_bump for change in changes}
    if MAJOR in asked:
        return f"{major + 1}.0"
    return f"{major}.{minor + 1}" if MINOR in asked else released


def _unmarked_methods(name: str, old: Any, new: Any, released: str, due: str) -> Iterator[str]:
    """Return new methods that say they are old: an old service would be asked for them, and not have them."""
    for method, described in sorted(new["methods"].items()):
        if method in old["methods"]:
            continue
        if (parse_version(described["version"]) or (0, 0)) <= (parse_version(released) or (0, 0)):
            yield (
                f"{name}.{method} is new, but is marked as added in version {described['version']}, which was released "
                f'without it: mark it with `version="{due}"`'
            )


def _compare_methods(name: str, old: Any, new: Any, old_types: Types, new_types: Types) -> Iterator[ApiChange]:
    before, after = old["methods"], new["methods"]
    for method in sorted({*before, *after}):
        where = f"{name}.{method}"
        if method not in after:
            yield ApiChange(f"{where} was removed", (OLD_CLIENTS,), MAJOR)
        elif method not in before:
            yield ApiChange(f"{where} was added", (NEW_CLIENTS,), MINOR)
        else:
            yield from _compare_method(where, before[method], after[method], old_types, new_types)


def _compare_method(where: str, old: Any, new: Any, old_types: Types, new_types: Types) -> Iterator[ApiChange]:
    one, other = ROLE_ORDER[Role(old["role"])], ROLE_ORDER[Role(new["role"])]
    if other > one:
        yield ApiChange(f"{where} now needs the role {new['role']}, no longer {old['role']}", (OLD_CLIENTS,), MAJOR)
    elif other < one:
        yield ApiChange(
            f"{where} now needs only the role {new['role']}, no longer {old['role']}", (NEW_CLIENTS,), MINOR
        )
    if old["changes"] != new["changes"]:
        yield ApiChange(f"{where} is {'now' if new['changes'] else 'no longer'} marked as changing something", (), NONE)
    if (parse_version(new["version"]) or (0, 0)) > (parse_version(old["version"]) or (0, 0)):
        what = f"{where} is now marked as added in version {new['version']}, no longer in {old['version']}"
        yield ApiChange(what, (NEW_CLIENTS,), MINOR)
    for name in sorted({*old["arguments"], *new["arguments"]}):
        before, after = old["arguments"].get(name), new["arguments"].get(name)
        yield from _compare_argument(f"the argument {name} of {where}", before, after, old_types, new_types)
    yield from _compare_result(where, old, new, old_types, new_types)


def _compare_argument(where: str, old: Any, new: Any, old_types: Types, new_types: Types) -> Iterator[ApiChange]:
    if new is None:
        yield ApiChange(f"{where} was removed", (OLD_CLIENTS,), MAJOR)
        return
    if old is None:
        needed = new["required"]
        whom, due = ((OLD_CLIENTS, NEW_CLIENTS), MAJOR) if needed else ((NEW_CLIENTS,), MINOR)
        yield ApiChange(f"{where} was added{' and is required' if needed else ''}", whom, due)
        return
    if new["required"] and not old["required"]:
        yield ApiChange(f"{where} is now required", (OLD_CLIENTS,), MAJOR)
    elif old["required"] and not new["required"]:
        yield ApiChange(f"{where} is no longer required", (NEW_CLIENTS,), MINOR)
    elif old.get("default") != new.get("default"):
        yield ApiChange(f"{where} has another default", (), MINOR)
    narrower = TypeCompatibility(new_types, old_types, complete=False).find_incompatibilities(
        new["type"], old["type"], "it"
    )
    if narrower:
        yield ApiChange(f"{where} accepts less than before ({'; '.join(narrower)})", (OLD_CLIENTS,), MAJOR)
        return
    wider = TypeCompatibility(old_types, new_types, complete=True).find_incompatibilities(
        old["type"], new["type"], "it"
    )
    ignored = [
        f"{field} is ignored by old services"
        for field in removed_fields(new["type"], old["type"], new_types, old_types)
    ]
    if wider or ignored:
        yield ApiChange(f"{where} accepts more than before ({'; '.join([*wider, *ignored])})", (NEW_CLIENTS,), MINOR)


def _compare_result(where: str, old: Any, new: Any, old_types: Types, new_types: Types) -> Iterator[ApiChange]:
    if old["streams"] != new["streams"]:
        what = f"{where} {'is now a stream' if new['streams'] else 'is no longer a stream'}"
        yield ApiChange(what, (OLD_CLIENTS, NEW_CLIENTS), MAJOR)
        return
    other = TypeCompatibility(old_types, new_types, complete=True).find_incompatibilities(
        old["result"], new["result"], "it"
    )
    other += [f"{field} was removed" for field in removed_fields(old["result"], new["result"], old_types, new_types)]
    if other:
        yield ApiChange(f"the result of {where} has changed ({'; '.join(dict.fromkeys(other))})", (OLD_CLIENTS,), MAJOR)
        return
    missing = TypeCompatibility(new_types, old_types, complete=True).find_incompatibilities(
        new["result"], old["result"], "it"
    )
    if missing:
        what = (
            f"the result of {where} guarantees more than old services return ({'; '.join(missing)}); give it a default"
        )
        yield ApiChange(what, (NEW_CLIENTS,), MAJOR)
        return
    more = removed_fields(new["result"], old["result"], new_types, old_types)
    if more:
        yield ApiChange(f"the result of {where} has new fields ({', '.join(more)})", (), MINOR)
