"""The OpenAPI 3.1 document of the API, made of what the daemon says of its methods."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import ostler
from ostler_http.api.openapi_parts import (
    HEADERS,
    OPERATION_PARAMETERS,
    PARAMETERS,
    PROBLEM_SCHEMA,
    fixed_paths,
    json_content,
    line_schema,
    problem_responses,
    read_response,
    refer_headers,
    responses,
    submitted_responses,
)
from ostler_http.api.openapi_schemas import Components, Schema, split_docstring
from ostler_http.api.resources import AUDIT_FILTERS, LISTINGS, SINGLES

if TYPE_CHECKING:
    from ostler_http.api.interfaces import Interface, Method

_NOT_IN_IDS = re.compile(r"\W+")
_DESCRIPTION = """\
Every exposed method of every service of this host, its events and operations, and the status of the daemon itself.

Bytes are base64 text. What a method takes and returns is as in messages: moments are numbers of seconds since 1970.
Under the short names moments are RFC 3339 text in UTC, or null for never, as the command shows them with `--json`.
Errors are problem details (RFC 9457) with the name of Ostler's error, its details and a hint.
"""


def make_document(host: str, mount: str, interfaces: Mapping[str, Interface]) -> Schema:
    """Return the document.

    Args:
        host: The name of this host.
        mount: The path where the API is mounted.
        interfaces: Topic to its interface.
    """
    components = Components()
    components.schemas["Problem"] = PROBLEM_SCHEMA
    paths: dict[str, Schema] = {}
    operation: Schema = {"type": "object"}
    methods: Schema = {"type": "array", "items": {"type": "object"}}
    if (control := interfaces.get("ostler")) is not None:
        _add_short_names(paths, components, control)
        operation = _shown(components, control, "operation.show")
        methods = components.add(control.methods["describe"].description.get("result_schema") or methods)
    for path, each in fixed_paths(operation, methods).items():
        paths.setdefault(path, {}).update(each)
    for topic, interface in sorted(interfaces.items()):
        for name, method in sorted(interface.methods.items()):
            _add_method(paths, components, topic, name, method, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Ostler on {host}", "version": ostler.__version__, "description": _DESCRIPTION},
        "servers": [{"url": mount}],
        "security": [{"bearer": []}],
        "tags": [
            {"name": "api", "description": "The daemon, its events and its operations"},
            *({"name": topic, "description": _about(topic)} for topic in sorted(interfaces)),
        ],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components.schemas,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "responses": problem_responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "see `ostler token new`"},
            },
        },
    }


def _about(topic: str) -> str:
    return "The methods of the daemon itself" if topic == "ostler" else f"The methods of the service {topic}"


def _add_method(
    paths: dict[str, Schema], components: Components, topic: str, name: str, method: Method, operation: Schema
) -> None:
    described = method.description
    title = f"{topic}.{name}.Arguments"
    arguments = components.arguments(described.get("arguments_schema") or {"type": "object"}, topic, title)
    for each in described["arguments"]:
        if each["doc"] and each["name"] in arguments.get("properties", {}):
            arguments["properties"][each["name"]]["description"] = each["doc"]
    result = components.add(described.get("result_schema") or {}, topic)
    common = {
        "tags": [topic],
        "summary": (described["doc"].strip().splitlines() or [f"{topic}.{name}"])[0],
        "description": _describe(method),
    }
    given = _method_responses(result, streams=method.streams)
    identifier = _NOT_IN_IDS.sub("_", f"{topic}_{name}")
    path: Schema = {
        "post": {
            **common, "operationId": identifier,
            "parameters": _refer("host", "timeout", "key", "prefer"),
            "requestBody": {"content": json_content(arguments), "required": bool(arguments.get("required"))},
            # Not 202: with `Prefer: respond-async` there is one, but whoever generates a client has the path of submit.
            "responses": responses(given, has_body=True),
        }
    }  # fmt: skip
    if not method.changes and "host" not in arguments.get("properties", {}):
        parameters = [*_query_parameters(arguments), *_refer("host", "timeout")]
        read = given if method.streams else read_response("The result", result)
        path["get"] = {
            **common, "operationId": f"get_{identifier}", "parameters": parameters, "responses": responses(read),
        }  # fmt: skip
    paths[f"/topics/{topic}/methods/{name}"] = path
    if method.durable:
        paths[f"/topics/{topic}/methods/{name}/submit"] = {"post": _submit(path["post"], identifier, operation)}


def _submit(call: Schema, identifier: str, operation: Schema) -> Schema:
    return {
        **call,
        "operationId": f"submit_{identifier}",
        "parameters": _refer(*OPERATION_PARAMETERS),
        "responses": responses(submitted_responses(operation), has_body=True),
    }


def _describe(method: Method) -> str:
    described = method.description
    notes = [f"Role {described['role']}, since version {described['version']}."]
    if method.durable:
        notes.append("Each request is an operation, which survives the daemon.")
    if described["secret"]:
        notes.append(f"Never shown: {', '.join(described['secret'])}.")
    text, _ = split_docstring(described["doc"])
    return f"{text}\n\n{' '.join(notes)}"


def _method_responses(result: Schema, *, streams: bool) -> Schema:
    if not streams:
        return {"200": {"description": "The result", "content": json_content(result)}}
    lines = line_schema(item=result, id={"type": "string"})
    content = {"application/x-ndjson": {"schema": lines}, "text/event-stream": {"schema": {"type": "string"}}}
    refused = {"$ref": "#/components/responses/NotAcceptable"}
    return {"200": {"description": "The items, one after another", "content": content}, "406": refused}


def _query_parameters(arguments: Schema) -> Iterable[Schema]:
    required = set(arguments.get("required", ()))
    for name, schema in arguments.get("properties", {}).items():
        found: Schema = {"name": name, "in": "query", "required": name in required}
        if _is_simple(schema):
            found["schema"] = schema
        else:
            found["content"] = json_content(schema)
        yield found


def _is_simple(schema: Mapping[str, Any]) -> bool:
    """Return whether values of a schema can stand in a query as they are: a text, a number, or a list of these."""
    if "anyOf" in schema:
        return all(_is_simple(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return schema.get("items", {}).get("type") in _SCALARS
    return schema.get("type") in _SCALARS


_SCALARS = ("string", "number", "integer", "boolean", "null")


def _refer(*names: str) -> list[Schema]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


# ---------------------------------------------------------------- short names


def _add_short_names(paths: dict[str, Schema], components: Components, control: Interface) -> None:
    for single in SINGLES:
        result = _shown(components, control, single.method)
        parameters = [*_path_parameters(single.path), *_text_parameters(single.query, control, single.method)]
        asked = [] if "host" in single.query else _refer("host")
        paths.setdefault(single.path, {})[single.verb.lower()] = _short_name(
            single.path,
            single.verb,
            single.summary,
            result,
            [*parameters, *asked, *_refer("timeout", *(["key"] if single.verb == "POST" else []))],
        )
    for listing in LISTINGS:
        rows = _shown(components, control, listing.method)
        if listing.path == "/drivers":
            rows = {"type": "array", "items": _driver_row(components)}
        filters = _text_parameters(listing.filters)
        paths[listing.path] = {"get": _list(listing.path, listing.summary, rows, filters)}
    paths["/audit"] = {
        "get": _list(
            "/audit", "Who did what, the newest first", _shown(components, control, "audit"),
            _text_parameters(AUDIT_FILTERS, control, "audit"),
        )
    }  # fmt: skip
    _add_operations(paths, components, control)


def _add_operations(paths: dict[str, Schema], components: Components, control: Interface) -> None:
    status = _shown(components, control, "operation.show")
    filters = [
        *_text_parameters(("topic", "state")),
        {"name": "mine", "in": "query", "schema": {"type": "boolean"}, "description": "Only those of the caller"},
    ]
    rows = _shown(components, control, "operation.list")
    paths["/operations"] = {"get": _list("/operations", "Operations, the newest first", rows, filters)}
    for ending, verb, summary in (
        ("", "GET", "An operation"),
        ("/cancel", "POST", "Cancel an operation"),
        ("/retry", "POST", "Queue an operation again that failed or was cancelled"),
    ):
        path = f"/operations/{{id}}{ending}"
        parameters = [*_path_parameters(path), *_refer("host", "timeout", "key" if verb == "POST" else "prefer")]
        paths[path] = {verb.lower(): _short_name(path, verb, summary, status, parameters)}


def _list(path: str, summary: str, rows: Schema, filters: Iterable[Schema]) -> Schema:
    found = _short_name(path, "GET", summary, rows, [*filters, *_refer("host", "limit", "cursor", "timeout")])
    found["responses"]["200"]["headers"] |= refer_headers("Link")
    return found


def _short_name(path: str, verb: str, summary: str, result: Schema, parameters: list[Schema]) -> Schema:
    changed = {"200": {"description": summary, "content": json_content(result)}}
    good = read_response(summary, result) if verb == "GET" else changed
    return {
        "tags": ["api"],
        "operationId": _NOT_IN_IDS.sub("_", f"{verb.lower()}{path}").strip("_"),
        "summary": summary,
        "parameters": parameters,
        "responses": responses(good, has_body=verb == "POST"),
    }


def _shown(components: Components, control: Interface, method: str) -> Schema:
    found = control.methods.get(method)
    return {} if found is None else components.add(found.description.get("result_schema") or {}, shown=True)


def _driver_row(components: Components) -> Schema:
    own = {name: {"type": "string"} for name in ("subject", "service", "host")}
    row: Schema = {"type": "object", "properties": own, "required": list(own)}
    return (
        {"allOf": [{"$ref": "#/components/schemas/DriverStatus"}, row]} if "DriverStatus" in components.schemas else row
    )


def _path_parameters(path: str) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _text_parameters(names: Iterable[str], control: Interface | None = None, method: str = "") -> list[Schema]:
    """Return query parameters: of the type that the method's argument has, or texts."""
    found = control.methods.get(method) if control is not None else None
    schema = (found.description.get("arguments_schema") or {}) if found is not None else {}
    properties = schema.get("$defs", {}).get("Arguments", {}).get("properties", {})
    return [
        {"name": name, "in": "query", "schema": {"type": properties.get(name, {}).get("type", "string")}}
        for name in names
    ]
