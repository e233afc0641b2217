"""What a manager offers over RPC, looked at without running any of it: versions, namespaces, descriptions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from inspect import cleandoc, getdoc
from types import MethodType
from typing import Any

import msgspec

from ostler.errors import ContractError
from ostler.messaging.interface.exposure import Exposure, exposure_of
from ostler.messaging.interface.method_signature import MethodSignature, as_json
from ostler.messaging.interface.wire_types import type_name
from ostler.types import ArgumentDescription, MethodDescription
from ostler.version_numbers import parse_version


class ExposedMethod(msgspec.Struct, frozen=True):
    """One exposed method of a class: `name` is `reset`, or `admin.reset` in a namespace."""

    namespace: str
    name: str
    exposure: Exposure
    signature: MethodSignature
    doc: str


def parse_rpc_version(text: object, where: str) -> tuple[int, int]:
    """Return a version `major.minor` as numbers.

    Args:
        text: The version.
        where: Whose it is, for the message.

    Raises:
        ContractError: It is not such a version.
    """
    numbers = parse_version(text)
    if numbers is None:
        raise ContractError(
            f"the version of {where}, {text!r}, is not a valid version", hint='write it as "major.minor", such as "1.0"'
        )
    return numbers


def check_method_version(method_version: str, rpc_version: str, where: str) -> None:
    """Hold a method to the version of what it belongs to.

    Args:
        method_version: The version that brought the method.
        rpc_version: The version of its manager or namespace.
        where: `topic.method`, for messages.

    Raises:
        ContractError: One of the two is no version, or the method is newer than what it belongs to.
    """
    method, whole = parse_rpc_version(method_version, where), parse_rpc_version(rpc_version, where.rpartition(".")[0])
    if method[0] != whole[0] or method > whole:
        raise ContractError(
            f"{where} was added in version {method_version}, but its `rpc_version` is {rpc_version}",
            hint=f'raise `rpc_version` to "{method_version}"' if method > whole else f'set `version="{whole[0]}.0"`',
            method=where, version=method_version, offered=rpc_version,
        )  # fmt: skip


def check_namespaces(topic: str, target: object, namespaces: Mapping[str, object]) -> None:
    """Look whether the names of namespaces can stand before a method's, and mean one thing each.

    Raises:
        ContractError: One cannot.
    """
    for name in namespaces:
        if not name.isidentifier() or name.startswith("_"):
            raise ContractError(
                f"{topic} has a namespace {name!r}, which is not a valid name",
                hint="use letters, digits and _",
                namespace=name,
            )
        if exposure_of(getattr(target, name, None)) is not None:
            raise ContractError(
                f"{topic} has a namespace {name!r} and a method of that name",
                hint="rename one of them",
                namespace=name,
            )


def rpc_version_of(target: object, where: str) -> str:
    """Return the `rpc_version` of a manager or namespace.

    Raises:
        ContractError: It is not a version.
    """
    version = getattr(target, "rpc_version", "1.0")
    parse_rpc_version(version, where)
    return str(version)


def list_exposed(name: str, manager: type) -> list[ExposedMethod]:
    """Return what a manager class offers, its namespaces included, in order of their names.

    Args:
        name: The manager's name, for messages.
        manager: Its class.

    Raises:
        ContractError: Something of it cannot be offered; the first of all.
    """
    found = []
    for each in _inspect(name, manager):
        if isinstance(each, ContractError):
            raise each
        found.append(each)
    return found


def find_contract_violations(name: str, manager: type, reserved: Collection[str] = ()) -> list[str]:
    """Return everything for which a manager class could not be offered; arguments as of `list_exposed`.

    Args:
        name: The manager's name, for messages.
        manager: Its class.
        reserved: Names of attributes that its objects have, which hide methods of those names.
    """
    hidden = [attribute for attribute in sorted(reserved) if exposure_of(getattr(manager, attribute, None)) is not None]
    return [
        *(str(each) for each in _inspect(name, manager) if isinstance(each, ContractError)),
        *(f"{name}.{attribute} cannot be exposed: managers have an attribute of that name" for attribute in hidden),
    ]


def _inspect(name: str, manager: type) -> Iterator[ExposedMethod | ContractError]:
    namespaces: Mapping[str, type] = getattr(manager, "namespaces", {})
    try:
        check_namespaces(name, manager, namespaces)
    except ContractError as error:
        yield error
    for namespace, cls in [("", manager), *sorted(namespaces.items())]:
        whole = f"{name}.{namespace}" if namespace else name
        try:
            offered = rpc_version_of(cls, whole)
        except ContractError as error:
            yield error
            continue
        for attribute in dir(cls):
            method: Any = getattr(cls, attribute, None)
            exposure = exposure_of(method)
            if exposure is None or not callable(method):
                continue
            try:
                yield _make_exposed_method(namespace, attribute, method, exposure, cls, whole, offered)
            except ContractError as error:
                yield error


def _make_exposed_method(
    namespace: str, attribute: str, method: Any, exposure: Exposure, cls: type, whole: str, offered: str
) -> ExposedMethod:
    where = f"{whole}.{attribute}"
    check_method_version(exposure.version, offered, where)
    # Bound to the class, for want of an instance: `self` is left out of the signature either way.
    signature = MethodSignature.checked(MethodType(method, cls), where, exposure.secret)
    return ExposedMethod(
        namespace, f"{namespace}.{attribute}" if namespace else attribute, exposure, signature, getdoc(method) or ""
    )


_HEADING = r"(Args|Arguments|Returns|Yields|Raises|Note|Notes|Example|Examples|Attributes):\s*"
_ARGUMENT_ENTRY = r"(?P<name>\*{0,2}\w+)(\s*\([^)]*\))?:\s*(?P<text>.*)"
"""Not compiled at the import: a daemon that is never asked for descriptions does without."""


def describe_method(
    topic: str,
    name: str,
    exposure: Exposure,
    signature: MethodSignature,
    doc: str,
    *,
    version: str,
    schema: bool,
    role: str = "",
) -> MethodDescription:
    """Return what there is to say of a method.

    Args:
        topic: Its topic.
        name: Its name, `admin.reset` in a namespace.
        exposure: What `@exposed` said.
        signature: What it takes and returns.
        doc: Its docstring.
        version: The version of its manager or namespace.
        schema: Whether the JSON Schemas are wanted too.
        role: The role in force, or `nobody`; empty for the one that `@exposed` sets.
    """
    arguments, result = signature.schema() if schema else (None, None)
    namespace = name.rpartition(".")[0]
    return MethodDescription(
        topic=topic,
        method=name,
        role=role or str(exposure.role),
        version=exposure.version,
        changes=exposure.changes,
        arguments=describe_arguments(signature, parse_argument_docs(doc)),
        result=type_name(signature.result),
        doc=doc,
        streams=signature.is_streaming,
        secret=sorted(signature.secrets),
        namespace=namespace,
        topic_version=version,
        arguments_schema=arguments,
        result_schema=result,
        durable=exposure.durable is not None,
    )


def describe_arguments(signature: MethodSignature, docs: Mapping[str, str]) -> list[ArgumentDescription]:
    """Return the arguments of a method, each with what its docstring says of it."""
    return [
        ArgumentDescription(
            name=argument.name,
            type=type_name(argument.type),
            required=argument.is_required,
            default=""
            if argument.is_required
            else _format_default(argument.default, argument.name in signature.secrets),
            doc=docs.get(argument.name, ""),
        )
        for argument in signature.arguments
    ]


def _format_default(value: Any, secret: bool) -> str:
    return '"***"' if secret and value else as_json(value)


def parse_argument_docs(doc: str) -> dict[str, str]:
    """Return what the section `Args:` of a docstring (Google's style) says of each argument, on one line each."""
    found: dict[str, list[str]] = {}
    inside, indent, name = False, 0, ""
    for line in cleandoc(doc).splitlines():
        text = line.strip()
        if re.fullmatch(_HEADING, line):
            inside, indent, name = line.startswith("Arg"), 0, ""
            continue
        if not inside or not text:
            continue
        depth = len(line) - len(line.lstrip())
        if not depth:  # the section has ended without another
            inside = False
            continue
        indent = indent or depth
        entry = re.fullmatch(_ARGUMENT_ENTRY, text) if depth == indent else None
        if entry is not None:
            name = entry["name"].lstrip("*")
            found[name] = [entry["text"]]
        elif name:
            found[name].append(text)
    return {name: " ".join(lines).strip() for name, lines in found.items()}
