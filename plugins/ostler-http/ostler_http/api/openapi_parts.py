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
    "prefer": {
        "name": "Prefer", "in": "header", "schema": {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"},
        "description": "RFC 7240. respond-async makes an operation of a call; wait=20 answers when one has ended, "
        "after 20 s at most; handling=lenient takes texts for numbers, booleans, lists and objects; call-kind=call and "
        "call-kind=stream refuse methods of the other kind; version=1.2 asks for this version of the method",
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
OPERATION_PARAMETERS = ("host", "timeout", "key", "prefer", "time_limit")

HEADERS: Schema = {
    "ETag": {"schema": _TEXT, "description": "For If-None-Match: 304 if nothing has changed"},
    "Link": {"schema": _TEXT, "description": 'Where the next page is: <…>; rel="next"; absent on the last one'},
    "Location": {"schema": _TEXT, "description": "Where the operation is"},
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to try again"},
    "WWW-Authenticate": {"schema": _TEXT, "description": "How to say who one is: Bearer"},
}
_ERRORS = {
    # Status: name, what it is, its header, and whether only requests with a body can have it.
    "400": ("BadRequest", "Headers, the query or the body cannot be read", "", False),
    "401": (
        "Unauthorized",
        "The request does not say who sends it, or its token is not valid",
        "WWW-Authenticate",
        False,
    ),
    "403": ("Forbidden", "The role of the caller does not allow it", "", False),
    "404": ("NotFound", "What was asked for is not there", "", False),
    "409": ("Conflict", "The state of what was asked for does not allow it", "", True),
    "413": ("TooLarge", "The request is too large", "", True),
    "415": ("UnsupportedMediaType", "The body is not application/json", "", True),
    "422": ("Unprocessable", "An argument is not valid", "", False),
    "429": ("TooManyRequests", "This caller has used its share", "Retry-After", False),
    "503": ("Unavailable", "It cannot be served now", "Retry-After", False),
    "504": ("Timeout", "The deadline has passed", "", False),
}


def json_content(schema: Schema) -> Schema:
    """Return the content of a body that is JSON."""
    return {"application/json": {"schema": schema}}


def refer_headers(*names: str) -> Schema:
    """Return the headers of a response."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def responses(good: Schema, *, has_body: bool = False) -> Schema:
    """Return responses with the problem details that every operation may have.

    Args:
        good: The responses that are no errors.
        has_body: Whether the requests have a body.
    """
    refused = {
        status: {"$ref": f"#/components/responses/{name}"}
        for status, (name, _, _, needs_body) in _ERRORS.items()
        if has_body or not needs_body
    }
    return {**good, **refused, "default": {"$ref": "#/components/responses/Problem"}}


def problem_responses() -> Schema:
    """Return the responses that `responses` refers to."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: Schema = {
        "Problem": {"description": "Problem details (RFC 9457)", "content": content},
        "NotAcceptable": {"description": "What a method yields is sent as a stream only", "content": content},
    }
    for name, text, header, _ in _ERRORS.values():
        more = {"headers": refer_headers(header)} if header else {}
        found[name] = {"description": text, **more, "content": content}
    return found


def fixed_paths(operation: Schema, methods: Schema) -> dict[str, Schema]:
    """Return the paths that do not depend on what the daemon has.

    Args:
        operation: The schema of an operation.
        methods: The schema of the descriptions of methods.
    """
    accepted = {"type": "object", "properties": {"accepted": {"type": "integer"}}, "required": ["accepted"]}
    method = "/topics/{topic}/methods/{method}"
    return {
        "/": {"get": _simple("index", "What there is", _INDEX)},
        "/topics": {"get": _simple("topics", "The topics that can be called, and on which hosts they are", _TOPICS)},
        "/topics/{topic}": {
            "get": _simple("topic", "The methods of a topic, with their schemas", methods, "topic", common=("host",))
        },
        f"{method}/cast": {
            "post": _sent("cast", "Have a method run; answer when a service has accepted it", accepted, "host", "key")
        },
        f"{method}/fanout": {"post": _sent("fanout", "Have every service on a topic run a method", accepted)},
        f"{method}/submit": {
            "post": _sent("submit", "Store a request as an operation", operation, "host", "key", "prefer", "time_limit")
        },
        "/operations/{id}/watch": {
            "get": _stream(
                "watch_operation", "An operation, and each change of it until it ends",
                line_schema(status=operation, id=_TEXT), [*_path("id"), *_refer(("host", "timeout"))],
            )
        },
        "/events": {
            "get": _stream(
                "events", "Events as they come, and after Last-Event-ID from the journal", _EVENT_LINES, _EVENTS
            )
        },
    }  # fmt: skip


def line_schema(**properties: Schema) -> Schema:
    """Return the schema of the lines of a stream, each an object with one of these, or with the end of it."""
    problem = {"$ref": "#/components/schemas/Problem"}
    end = {"type": "object", "properties": {"count": {"type": "integer"}}}
    return {
        "type": "object",
        "properties": {**properties, "end": end, "error": problem, "stopping": {"type": "object"}},
    }


_OBJECT: Schema = {"type": "object"}
_INDEX: Schema = {
    "type": "object", "required": ["host", "paths"],
    "properties": {"host": _TEXT, "paths": {"type": "object", "additionalProperties": _TEXT}},
}  # fmt: skip
_TOPICS: Schema = {
    "type": "array",
    "items": {
        "type": "object", "required": ["topic", "hosts"],
        "properties": {"topic": _TEXT, "hosts": {"type": "array", "items": _TEXT}},
    },
}  # fmt: skip
_COUNT: Schema = {"type": "integer"}
_EVENT: Schema = {
    "type": "object",
    "required": ["topic", "host", "name", "payload", "sequence", "at"],
    "properties": {
        **dict.fromkeys(("topic", "host", "name", "request_id", "trace", "priority"), _TEXT),
        "payload": {}, "sequence": _COUNT, "epoch": _COUNT, "journaled": _COUNT,
        "at": {"type": ["string", "null"], "format": "date-time"},
    },
}  # fmt: skip
_GAP: Schema = {
    "type": "object",
    "required": ["topic", "host", "first", "last"],
    "properties": {"topic": _TEXT, "host": _TEXT, "first": _COUNT, "last": _COUNT},
    "description": "Events that nobody can send again; 0 to 0 if nobody knows how many",
}
_READY: Schema = {
    "type": "object",
    "properties": {
        "patterns": {"type": "array", "items": _TEXT},
        "positions": {"type": "object", "additionalProperties": _COUNT},
    },
}
_EVENT_LINES = line_schema(ready=_READY, event=_EVENT, gap=_GAP, id=_TEXT)
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
        "responses": responses(read_response(summary, schema)),
    }  # fmt: skip


def read_response(summary: str, schema: Schema, *headers: str) -> Schema:
    """Return the responses of a read: what was asked for, or 304."""
    return {
        "200": {"description": summary, "headers": refer_headers("ETag", *headers), "content": json_content(schema)},
        "304": {"description": "As the client has it already (If-None-Match)"},
    }


def submitted_responses(operation: Schema) -> Schema:
    """Return the responses of a submit: the operation."""
    common: Schema = {"headers": refer_headers("Location"), "content": json_content(operation)}
    return {
        "200": {"description": "The operation, which was waited for (Prefer: wait) and has ended", **common},
        "202": {"description": "The operation, stored", **common},
    }


def _sent(identifier: str, summary: str, schema: Schema, *common: str) -> Schema:
    accepted = {"202": {"description": "Accepted", "content": json_content(schema)}}
    good = submitted_responses(schema) if identifier == "submit" else accepted
    return {
        "tags": ["api"], "operationId": identifier, "summary": summary,
        "parameters": [*_path("topic", "method"), *_refer((*common, "timeout"))],
        "requestBody": {"content": json_content(_OBJECT)},
        "responses": responses(good, has_body=True),
    }  # fmt: skip


def _stream(identifier: str, summary: str, lines: Schema, parameters: list[Schema]) -> Schema:
    content = {"text/event-stream": {"schema": _TEXT}, "application/x-ndjson": {"schema": lines}}
    return {
        "tags": ["api"], "operationId": identifier, "summary": summary, "parameters": parameters,
        "responses": responses({"200": {"description": summary, "content": content}}),
    }  # fmt: skip
