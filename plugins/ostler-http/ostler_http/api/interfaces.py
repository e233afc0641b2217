"""What methods take and return, as the daemon describes it; kept for a moment, and fetched again when it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ostler import MethodNotFound, nearest
from ostler_http.api.schema_values import Change, bytes_from_base64, moments_to_rfc3339

if TYPE_CHECKING:
    from ostler import Clock

CONTROL_TOPIC = "ostler"
_FRESH = 2.0
"""Seconds for which a description is taken as it is; a reload shows after that."""
_MAX_KEPT = 500
"""Topics of hosts whose descriptions are kept."""


class Method:
    """What the API has to know of a method.

    Args:
        description: The description that the daemon gives, with schemas.

    Attributes:
        lists: The names of arguments that are lists, for queries.
        has_host: Whether it has an argument `host`, which in queries is the host that is asked.
    """

    __slots__ = ("_to_shown", "changes", "description", "durable", "from_json", "has_host", "lists", "name", "streams")

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.description = description
        self.name: str = description["method"]
        self.changes: bool = description["changes"]
        self.streams: bool = description["streams"]
        self.durable: bool = description["durable"]
        schema = description.get("arguments_schema") or {}
        self.from_json: Change | None = bytes_from_base64(_arguments_of(schema))
        properties = _arguments_of(schema).get("properties", {})
        self.lists = frozenset(name for name, each in properties.items() if _is_list(each))
        self.has_host = "host" in properties
        self._to_shown: list[Change | None] = []

    @property
    def to_shown(self) -> Change | None:
        """What makes RFC 3339 of the moments in a result, as `--json` does; None if it has none."""
        if not self._to_shown:  # few results are shown so
            self._to_shown.append(moments_to_rfc3339(self.description.get("result_schema") or {}))
        return self._to_shown[0]


class Interface:
    """The methods of a topic on a host, as they were described at a moment."""

    def __init__(self, plain: list[dict[str, Any]], methods: Mapping[str, Method], topic: str) -> None:
        self.plain = plain
        self.methods = methods
        self.topic = topic
        self.checked_at = 0.0

    def method(self, name: str) -> Method:
        """Return a method.

        Raises:
            MethodNotFound: There is none of that name.
        """
        if (found := self.methods.get(name)) is not None:
            return found
        near = nearest(name, self.methods)
        raise MethodNotFound(
            f"method {self.topic}.{name[:255]} not found",
            hint=f"did you mean {near}?" if near else f"GET …/topics/{self.topic} lists its methods",
            topic=self.topic, method=name[:255],
        )  # fmt: skip


class Interfaces:
    """The interfaces of topics, by topic and host. On the loop of the application.

    They are asked for in the name of the caller who needs them; what they say is the same for everybody with a role.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], Interface] = {}

    def forget(self) -> None:
        """Have everything described again, after what may have changed it."""
        self._known.clear()

    async def get(
        self, client: Any, topic: str, host: str = "", *, time_left: Callable[[], float | None] = lambda: None
    ) -> Interface:
        """Return the interface of a topic.

        Args:
            client: The client of a caller with a role.
            topic: The topic.
            host: The host; empty for this one, or one that has the topic.
            time_left: Returns the seconds that the host has to describe it; None for the daemon's `call_timeout`.

        Raises:
            ServiceNotFound: There is no such topic.
            OstlerError: What the description failed with.
        """
        now = self._clock.monotonic()
        known = self._known.get((topic, host))
        if known is not None and now - known.checked_at < _FRESH:
            return known
        if known is not None:
            known.checked_at = now  # others go on with it while this one looks

        async def describe(**more: bool) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await client.call(
                CONTROL_TOPIC, "describe", {"topic": topic, **more}, host=host or None, timeout=time_left()
            )
            return found

        plain = await describe()
        if known is None or known.plain != plain:
            described = await describe(schema=True)
            known = Interface(plain, {each["method"]: Method(each) for each in described}, topic)
            while len(self._known) >= _MAX_KEPT:
                del self._known[next(iter(self._known))]
            self._known[topic, host] = known
        known.checked_at = self._clock.monotonic()
        return known


def _arguments_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of an object of arguments itself, with the definitions that it uses."""
    if "$ref" not in schema:
        return schema
    found = schema.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
    return {**found, "$defs": schema.get("$defs", {})}


def _is_list(schema: Mapping[str, Any]) -> bool:
    kinds = [schema, *schema.get("anyOf", [])]
    return any(each.get("type") == "array" for each in kinds) and not any(
        each.get("type") == "string" for each in kinds
    )
