"""The common part of `call` and `cast`: arguments as they are typed, and the description of a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ostler.cli import invocation, kit
from ostler.config.units import parse_seconds
from ostler.errors import MethodNotFound, ServiceNotFound
from ostler.spelling import nearest
from ostler.types import CONTROL_TOPIC, ArgumentDescription, Json, MethodDescription


def parse_arguments(words: Sequence[str]) -> dict[str, Json]:
    """Return `key=value` words as arguments for a lenient client.

    Lists, tables and quoted texts are decoded as JSON. Everything else stays text: the service, which knows the type of
    each argument, converts `size=10` to a number and `name=10` to a text.

    Args:
        words: The arguments as they were typed.

    Raises:
        InvalidInput: A word is not `key=value`.
    """
    found = kit.pairs(words)
    typed = dict(word.split("=", 1) for word in words)
    return {key: value if isinstance(value, str | list | dict) else typed[key] for key, value in found.items()}


def call_or_relay(
    client: invocation.ClientProtocol, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]
) -> Any:
    """Call a method; the local daemon forwards the call to another host if the caller has the role for it.

    Args:
        client: The client, with all other options set.
        topic: The service.
        method: The method.
        host: The service's host; None for the local one, or else one that has the service.
        arguments: The method's arguments.
    """
    try:
        return client.on(host=host).call(topic, method, **arguments)
    except ServiceNotFound as error:
        relayed = _relay_arguments(error, topic, method, host, arguments)
        return client.call(CONTROL_TOPIC, "relay", **relayed)


def cast_or_relay(
    client: invocation.ClientProtocol, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]
) -> None:
    """Cast a method; see `call`."""
    try:
        client.on(host=host).cast(topic, method, **arguments)
    except ServiceNotFound as error:
        client.call(CONTROL_TOPIC, "relay", cast=True, **_relay_arguments(error, topic, method, host, arguments))


def stream_or_relay(
    client: invocation.ClientProtocol, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]
) -> Iterator[Any]:
    """Yield the items of a streaming method; `--timeout` is the time for each of them. See `call`."""
    client = client.on(timeout=invocation.current_invocation().timeout)
    try:
        yield from client.on(host=host).stream(topic, method, **arguments)
    except ServiceNotFound as error:
        relayed = _relay_arguments(error, topic, method, host, arguments)
        yield from client.stream(CONTROL_TOPIC, "relay_stream", **relayed)


def _relay_arguments(
    error: ServiceNotFound, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]
) -> dict[str, Any]:
    """Return the arguments of the request to forward; raises the error if it cannot be forwarded."""
    if not host or error.details.get("here") in (None, host):
        raise error
    return {"on_host": host, "topic": topic, "method": method, "arguments": arguments}


def describe_service(client: invocation.ClientProtocol, topic: str, host: str | None = None) -> list[MethodDescription]:
    """Return the methods of a service; with their JSON Schemas if the output is JSON.

    Args:
        client: The client.
        topic: The service.
        host: The service's host; None for the local one, or else one that has the service.
    """
    arguments: dict[str, Any] = {"topic": topic, **({"schema": True} if kit.json_wanted() else {})}
    found: list[MethodDescription] = call_or_relay(
        client.on(type=list[MethodDescription]), CONTROL_TOPIC, "describe", host, arguments
    )
    return found


def find_method(
    client: invocation.ClientProtocol, topic: str, method: str, host: str | None = None
) -> MethodDescription:
    """Return the description of one method.

    Args:
        client: The client.
        topic: The service.
        method: The method.
        host: The service's host; None for the local one, or else one that has the service.

    Raises:
        MethodNotFound: The service does not have the method.
    """
    methods = describe_service(client, topic, host)
    for each in methods:
        if each.method == method:
            return each
    near = nearest(method, (each.method for each in methods))
    hint = f"did you mean {near}?" if near else f"see `ostler describe {topic}`"
    raise MethodNotFound(f"method {topic}.{method} not found", hint=hint, topic=topic, method=method)


def format_signature(method: MethodDescription) -> str:
    """Return a method as it would be written: `create(name: str, size: int = 0) -> Volume`."""
    result = f"stream of {method.result}" if method.streams else method.result
    return f"{method.method}({', '.join(_format_arguments(method))}) -> {result}"


def _format_arguments(method: MethodDescription) -> Iterable[str]:
    for argument in method.arguments:
        default = "" if argument.required else f" = {argument.default}"
        yield f"{argument.name}: {argument.type}{default}"


def show_method(method: MethodDescription) -> None:
    """Show one method, with its docstring."""
    if kit.json_wanted():
        kit.emit(method)
        return
    kit.heading(kit.printable(f"{method.topic}.{format_signature(method)}"))
    kit.say(f"  {'; '.join(_method_details(method))}")
    for line in "\n".join(_without_args_section(method.doc)).rstrip().splitlines():
        kit.say(f"  {kit.printable(line)}".rstrip())
    if method.arguments:
        kit.say()
        kit.show_table(method.arguments, [
            kit.Column("argument", "name", priority=0),
            kit.Column("type", priority=0, min_width=12),
            kit.Column("default", lambda each: "required" if each.required else each.default, priority=1),
            kit.Column("description", lambda each: _argument_help(method, each), priority=0),
        ])  # fmt: skip
        kit.say()
    words = " ".join(f"{each.name}=…" if each.required else f"[{each.name}=…]" for each in method.arguments)
    kit.say(f"  usage: ostler call {method.topic} {method.method} {words}".rstrip())


def _without_args_section(doc: str) -> Iterator[str]:
    """Return the lines of a docstring without its section `Args:`, which the table shows."""
    inside = False
    for line in doc.strip().splitlines():
        if line and not line[0].isspace():
            inside = line.strip() == "Args:"
        if not inside:
            yield line


def _method_details(method: MethodDescription) -> Iterator[str]:
    name = f"{method.topic}.{method.namespace}" if method.namespace else method.topic
    yield f"role {method.role}"
    yield f"since version {method.version}{f' ({name} is {method.topic_version})' if method.topic_version else ''}"
    if not method.changes:
        yield "read-only"
    if method.streams:
        yield "stream"
    if method.durable:
        yield "durable: each request is an operation"


def _argument_help(method: MethodDescription, argument: ArgumentDescription) -> str:
    secret = "secret, never shown" if argument.name in method.secret else ""
    return "; ".join(text for text in (argument.doc, secret) if text)


def parse_timeout(text: str | None) -> float | None:
    """Return the seconds of a time as it is typed (`30`, `5min`), None for none.

    Raises:
        InvalidInput: It is not a valid time.
    """
    if text is None:
        return None
    return parse_seconds(text)
