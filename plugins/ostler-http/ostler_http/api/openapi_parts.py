"""The parts of the OpenAPI document that are the same on every host."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_SECONDS: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 604800}

PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "description": "An error, as RFC 9457 has it",
    # The server itself refuses what does not come as far as to an application, and knows no more.
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "urn:ostler:error: and the name of the error, or about:blank"},
        "title": {"type": "string", "description": "The name of the error as words"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, and to what"},
        "error": {"type": "string", "description": "The name of the error: ostler.NotFound, or that of a plugin"},
        "bases": {"type": "array", "items": {"type": "string"}, "description": "The errors it is one of as well"},
        "hint": {"type": "string", "description": "What to do next; may be empty"},
        "details": {"type": "object", "description": "What the error is about, for programs"},
        "request_id": {"type": "string", "description": "The id by which the log and the audit log know the request"},
    },
}

PARAMETERS: Schema = {
    "host": {
        "name": "host", "in": "query", "schema": _TEXT,
        "description": "The host that is asked; this one, or one that has the service, without it",
    },
    "timeout": {
        "name": "Request-Timeout", "in": "header", "schema": _SECONDS,
        "description": "Seconds that the request may take",
    },
    "key": {
        "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255,
        "pattern": "^[ -~]*$"},
        "description": "The same request under the same key runs once; its answer is repeated",
    },
    "preference": {
        "name": "Prefer", "in": "header", "schema": {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"},
        "description": "handling=lenient takes texts for numbers, booleans, lists and objects; respond-async makes an "
        "operation of a call; call-kind=call and call-kind=stream refuse methods of the other kind; "
        "version=1.2 asks for this version of the method",
    },
    "time_limit": {
        "name": "time_limit", "in": "query", "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 300000000},
        "description": "Seconds in which the operation must end, also over restarts of the daemon",
    },
    "limit": {
        "name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
        "description": "How many rows a page has",
    },
    "cursor": {
        "name": "cursor", "in": "query", "schema": _TEXT,
        "description": "Where the page begins: from the header Link of the page before",
    },
}  # fmt: skip
OPERATION_PARAMETERS = ("host", "timeout", "key", "time_limit")


def json_content(schema: Schema) -> Schema:
    """Return the content of a body that is JSON."""
    return {"application/json": {"schema": schema}}


def responses(good: Schema) -> Schema:
    """Return responses with the problem details that every operation may have."""
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {**good, "default": {"description": "Problem details (RFC 9457)", "content": problem}}


def fixed_paths() -> dict[str, Schema]:
    """Return the paths that do not depend on what the daemon has."""
    accepted = {"type": "object", "properties": {"accepted": {"type": "integer"}}, "required": ["accepted"]}
    operation = {"type": "object", "properties": {"id": _TEXT}, "required": ["id"]}
    method = "/topics/{topic}/methods/{method}"
    return {
        "/": {"get": _simple("index", "What there is", {"type": "object"})},
        "/topics": {"get": _simple("topics", "The topics that can be called, and on which hosts they are", _ARRAY)},
        "/topics/{topic}": {
            "get": _simple("topic", "The methods of a topic, with their schemas", _ARRAY, "topic", common=("host",))
        },
        f"{method}/cast": {
            "post": _sent("cast", "Have a method run; answer when a service has accepted it", accepted, "host", "key")
        },
        f"{method}/fanout": {"post": _sent("fanout", "Have every service on a topic run a method", accepted)},
        f"{method}/submit": {
            "post": _sent("submit", "Store a request as an operation", operation, "host", "key", "time_limit")
        },
        "/operations/{id}/watch": {
            "get": _stream("watch_operation", "An operation, and each change of it until it ends", _path("id"))
        },
        "/events": {"get": _stream("events", "Events as they come, and after Last-Event-ID from the journal", _EVENTS)},
    }


_ARRAY: Schema = {"type": "array", "items": {"type": "object"}}
_EVENTS: list[Schema] = [
    {
        "name": "topic", "in": "query", "schema": {"type": "array", "items": _TEXT, "maxItems": 20},
        "description": "Which events: topic, topic.host or topic.host.name, with * for any characters; all without it",
    },
    {"name": "since", "in": "query", "schema": _TEXT, "description": "As Last-Event-ID: volume:12;images:3"},
    {
        "name": "last", "in": "query", "schema": {"type": "boolean"},
        "description": "Begin with the last event of each key, unless a position is known",
    },
    {"name": "Last-Event-ID", "in": "header", "schema": _TEXT, "description": "The id of the last event that was seen"},
]  # fmt: skip


def _path(*names: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]


def _refer(names: tuple[str, ...]) -> list[Schema]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _simple(identifier: str, summary: str, schema: Schema, *parameters: str, common: tuple[str, ...] = ()) -> Schema:
    return {
        "tags": ["api"], "operationId": identifier, "summary": summary,
        "parameters": [*_path(*parameters), *_refer(common)],
        "responses": responses({"200": {"description": summary, "content": json_content(schema)}}),
    }  # fmt: skip


def _sent(identifier: str, summary: str, schema: Schema, *common: str) -> Schema:
    return {
        "tags": ["api"], "operationId": identifier, "summary": summary,
        "parameters": [*_path("topic", "method"), *_refer((*common, "timeout"))],
        "requestBody": {"content": json_content({"type": "object"})},
        "responses": responses({"202": {"description": "Accepted", "content": json_content(schema)}}),
    }  # fmt: skip


def _stream(identifier: str, summary: str, parameters: list[Schema]) -> Schema:
    content = {"text/event-stream": {"schema": _TEXT}, "application/x-ndjson": {"schema": {"type": "object"}}}
    return {
        "tags": ["api"], "operationId": identifier, "summary": summary, "parameters": parameters,
        "responses": responses({"200": {"description": summary, "content": content}}),
    }  # fmt: skip
