"""What `call` and `cast` have in common: arguments as they are typed, and the description of a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ostler.cli import kit, session
from ostler.errors import NotFound, TargetNotFound
from ostler.spelling import nearest
from ostler.types import CONTROL_TOPIC, ArgumentDescription, Json, MethodDescription


def arguments_of(words: Sequence[str]) -> dict[str, Json]:
    """Return `key=value` words as arguments for a lenient client.

    Lists, tables and quoted texts are decoded as JSON. Everything else is left as it was typed: the service, which
    knows what an argument is, makes a number of `size=10` and a text of `name=10`.

    Args:
        words: What was typed.

    Raises:
        InvalidInput: A word is not `key=value`.
    """
    found = kit.pairs(words)
    typed = dict(word.split("=", 1) for word in words)
    return {key: value if isinstance(value, str | list | dict) else typed[key] for key, value in found.items()}


def call(client: session.Calls, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]) -> Any:
    """Call a method; the daemon here brings it to another host, as far as whoever asks may have that.

    Args:
        client: Asked, with all other options.
        topic: The service.
        method: The method.
        host: The service's host, None for the one here, or one that has it.
        arguments: The method's arguments.
    """
    try:
        return client.on(host=host).call(topic, method, **arguments)
    except TargetNotFound as error:
        relayed = _relayed(error, topic, method, host, arguments)
        return client.call(CONTROL_TOPIC, "relay", **relayed)


def cast(client: session.Calls, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]) -> None:
    """Cast a method; see `call`."""
    try:
        client.on(host=host).cast(topic, method, **arguments)
    except TargetNotFound as error:
        client.call(CONTROL_TOPIC, "relay", cast=True, **_relayed(error, topic, method, host, arguments))


def stream(
    client: session.Calls, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]
) -> Iterator[Any]:
    """Yield what a method yields; see `call`."""
    try:
        yield from client.on(host=host).stream(topic, method, **arguments)
    except TargetNotFound as error:
        relayed = _relayed(error, topic, method, host, arguments)
        yield from client.stream(CONTROL_TOPIC, "relay_stream", **relayed)


def _relayed(
    error: TargetNotFound, topic: str, method: str, host: str | None, arguments: Mapping[str, Json]
) -> dict[str, Any]:
    """Return what the daemon here is asked instead, when it is not the one that is meant; raises the error if it is."""
    if not host or error.facts.get("here") in (None, host):
        raise error
    return {"on_host": host, "topic": topic, "method": method, "arguments": arguments}


def describe(client: session.Calls, topic: str, host: str | None = None) -> list[MethodDescription]:
    """Return the methods of a service; with their JSON Schemas when the answer is to be JSON.

    Args:
        client: Asked.
        topic: The service.
        host: The service's host, None for the one here, or one that has it.
    """
    arguments: dict[str, Any] = {"topic": topic, **({"schema": True} if kit.json_wanted() else {})}
    found: list[MethodDescription] = call(
        client.on(type=list[MethodDescription]), CONTROL_TOPIC, "describe", host, arguments
    )
    return found


def find_method(client: session.Calls, topic: str, method: str, host: str | None = None) -> MethodDescription:
    """Return the description of one method.

    Args:
        client: Asked.
        topic: The service.
        method: The method.
        host: The service's host, None for the one here, or one that has it.

    Raises:
        NotFound: The service has no such method.
    """
    methods = describe(client, topic, host)
    for each in methods:
        if each.method == method:
            return each
    near = nearest(method, (each.method for each in methods))
    hint = f"did you mean {near}?" if near else f"see `ostler describe {topic}`"
    raise NotFound(f"{topic} has no method {method}", hint=hint, topic=topic, method=method)


def signature(method: MethodDescription) -> str:
    """Return a method as it would be written: `create(name: str, size: int = 0) -> Volume`."""
    result = f"stream of {method.result}" if method.streams else method.result
    return f"{method.method}({', '.join(_written(method))}) -> {result}"


def _written(method: MethodDescription) -> Iterable[str]:
    for argument in method.arguments:
        default = "" if argument.required else f" = {argument.default}"
        yield f"{argument.name}: {argument.type}{default}"


def show_method(method: MethodDescription) -> None:
    """Show one method to people, with all that its docstring says."""
    if kit.json_wanted():
        kit.emit(method)
        return
    kit.heading(kit.printable(f"{method.topic}.{signature(method)}"))
    kit.say(f"  {'; '.join(_facts(method))}")
    for line in "\n".join(_without_arguments(method.doc)).rstrip().splitlines():
        kit.say(f"  {kit.printable(line)}".rstrip())
    if method.arguments:
        kit.say()
        kit.show_table(method.arguments, [
            kit.Column("argument", "name"),
            "type",
            kit.Column("default", lambda each: "required" if each.required else each.default),
            kit.Column("what it is", lambda each: _about(method, each)),
        ])  # fmt: skip
        kit.say()
    words = " ".join(f"{each.name}=…" if each.required else f"[{each.name}=…]" for each in method.arguments)
    kit.say(f"  try: ostler call {method.topic} {method.method} {words}".rstrip())


def _without_arguments(doc: str) -> Iterator[str]:
    """Return the lines of a docstring without its section `Args:`, which the table shows."""
    inside = False
    for line in doc.strip().splitlines():
        if line and not line[0].isspace():
            inside = line.strip() == "Args:"
        if not inside:
            yield line


def _facts(method: MethodDescription) -> Iterator[str]:
    name = f"{method.topic}.{method.namespace}" if method.namespace else method.topic
    yield f"role {method.role}"
    yield f"since version {method.version}{f' ({name} is {method.topic_version})' if method.topic_version else ''}"
    if not method.changes:
        yield "changes nothing"
    if method.streams:
        yield "yields its results one by one"


def _about(method: MethodDescription, argument: ArgumentDescription) -> str:
    secret = "secret: shown nowhere" if argument.name in method.secret else ""
    return "; ".join(text for text in (argument.doc, secret) if text)


def seconds(text: str | None) -> float | None:
    """Return the seconds of a time as it is typed (`30`, `5min`), None for none.

    Raises:
        InvalidInput: It is no time.
    """
    if text is None:
        return None
    from ostler.config.units import parse_seconds

    return parse_seconds(text)
