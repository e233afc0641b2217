"""How exposed methods are described to people and programs; made when asked for, and never kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

from ostler.messaging.interface.exposure import Exposure
from ostler.messaging.interface.method_signature import MethodSignature, as_json
from ostler.messaging.interface.wire_types import type_name
from ostler.types import ArgumentDescription, MethodDescription

_HEADING = re.compile(r"(Args|Arguments|Returns|Yields|Raises|Note|Notes|Example|Examples|Attributes):\s*")
_ARGUMENT_ENTRY = re.compile(r"(?P<name>\*{0,2}\w+)(\s*\([^)]*\))?:\s*(?P<text>.*)")


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
        if _HEADING.fullmatch(line):
            inside, indent, name = line.startswith("Arg"), 0, ""
            continue
        if not inside or not text:
            continue
        depth = len(line) - len(line.lstrip())
        if not depth:  # the section has ended without another
            inside = False
            continue
        indent = indent or depth
        entry = _ARGUMENT_ENTRY.fullmatch(text) if depth == indent else None
        if entry is not None:
            name = entry["name"].lstrip("*")
            found[name] = [entry["text"]]
        elif name:
            found[name].append(text)
    return {name: " ".join(lines).strip() for name, lines in found.items()}
