"""Which topics are open here, and who may call what on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from ostler.errors import Conflict, OstlerError, ServiceNotFound
from ostler.messaging.access.policy import Policy
from ostler.messaging.rpc.endpoint import Endpoint, Method
from ostler.messaging.rpc.errors import (
    draining_error,
    restarting_error,
    service_left_out_error,
    service_not_started_error,
    service_starting_error,
    service_stopped_error,
)
from ostler.messaging.wire.envelope import Request
from ostler.spelling import suggest
from ostler.types import MethodDescription, OperatorOverride

_log = logging.getLogger(__name__)


class TopicRegistry:
    """The open topics of a daemon. On the loop's thread only, where nothing else is said.

    Args:
        host: The host that this daemon is.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._policy = Policy()
        self.endpoints_by_topic: dict[str, Endpoint] = {}
        """For looking up, by whoever holds this; changed here only."""
        self.on_close: Callable[[Endpoint], None] | None = None
        """Called with each topic that was closed."""
        self._unavailable: dict[str, OstlerError] = {}
        """What callers of a topic are told that this daemon has, and that is not open."""
        self._left_out: set[str] = set()
        self._restarting: dict[str, OstlerError] = {}
        """What they are told instead while a reload restarts it, and goes back if that fails."""

    def mark_starting(self, topic: str) -> None:
        """Record that a topic is to be opened: until it is, its callers are told to come again."""
        self._unavailable[topic] = service_starting_error(topic, self.host)

    def mark_unavailable(self, topic: str, reason: str) -> None:
        """Record that a topic is not opened any more; with an empty `reason` because all has been stopped."""
        endpoint = self.endpoints_by_topic.get(topic)
        if not reason and endpoint is not None and endpoint.returns_after is not None:
            self._unavailable[topic] = draining_error(endpoint)  # it is restarted, and its callers are told that
            return
        self._unavailable[topic] = (
            service_not_started_error(topic, self.host, reason) if reason else service_stopped_error(topic, self.host)
        )

    def set_left_out(self, topics: Mapping[str, str]) -> None:
        """Tell callers of services that are left out of the configuration why, and of those before not any longer.

        Args:
            topics: Topic to the reason; one that is open is not left out.
        """
        for topic in [topic for topic, error in self._unavailable.items() if topic in self._left_out - topics.keys()]:
            del self._unavailable[topic]
        self._left_out = {topic for topic in topics if topic not in self.endpoints_by_topic}
        for topic in self._left_out:
            self._unavailable[topic] = service_left_out_error(topic, self.host, topics[topic])

    def begin_restart(self, topic: str, why: str, returns_after: float) -> None:
        """Tell callers of a topic to try again, whatever becomes of it until `end_restart`: it drains, stops or fails.

        Args:
            topic: The topic.
            why: What callers are told.
            returns_after: Seconds after which they are to try again.
        """
        self._restarting[topic] = restarting_error(topic, why, returns_after)

    def end_restart(self, topic: str) -> None:
        """Tell callers of a topic what is so again."""
        self._restarting.pop(topic, None)

    def forget(self, topic: str) -> None:
        """Forget a topic that this daemon does not have any more: to its callers it is an unknown one."""
        self._unavailable.pop(topic, None)

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Open a topic.

        Raises:
            Conflict: The topic is already open.
        """
        if endpoint.topic in self.endpoints_by_topic:
            raise Conflict(f"the topic {endpoint.topic} is already open", topic=endpoint.topic)
        self.endpoints_by_topic[endpoint.topic] = endpoint
        self._unavailable.pop(endpoint.topic, None)
        self._apply_policy(endpoint)

    def set_policy(self, policy: Policy) -> None:
        """Apply other roles to every call from now on, also over existing connections."""
        if policy.rules == self._policy.rules:
            return
        self._policy = policy
        for endpoint in self.endpoints_by_topic.values():
            self._apply_policy(endpoint)

    def _apply_policy(self, endpoint: Endpoint) -> None:
        for change in endpoint.apply_policy(self._policy):
            if change.is_relaxed:
                text = "[access.methods] opens %s to the role %s; its author requires %s"
                _log.warning(text, change.full_name, change.required_role, change.declared_role)
            else:
                _log.info(
                    "[access.methods] restricts %s to %s instead of %s",
                    change.full_name,
                    change.required_role,
                    change.declared_role,
                )

    def remove_endpoint(self, topic: str) -> None:
        """Close a topic; what is in progress goes on, and its callers are answered."""
        endpoint = self.endpoints_by_topic.pop(topic, None)
        if endpoint is not None and self.on_close is not None:
            self.on_close(endpoint)

    def set_draining(self, topic: str, reason: str, returns_after: float | None = None) -> None:
        """Refuse new requests for a topic from now on; with an empty `reason`, take them again.

        Args:
            topic: The topic; no effect on one that is not open.
            reason: What callers are told.
            returns_after: Seconds after which they are to try again; None if it does not come back by itself.
        """
        if (endpoint := self.endpoints_by_topic.get(topic)) is not None:
            endpoint.draining_reason = reason
            endpoint.returns_after = returns_after
            endpoint.refuses_work = bool(reason) or endpoint.frozen is not None

    def set_max_in_flight(self, topic: str, limit: int) -> None:
        """Change how many requests of a topic may be in progress."""
        if (endpoint := self.endpoints_by_topic.get(topic)) is not None:
            endpoint.max_in_flight = limit

    def set_frozen(self, topic: str, frozen: OperatorOverride | None) -> None:
        """Refuse new work on a topic from now on, but nothing that changes nothing; with None, take all again."""
        if (endpoint := self.endpoints_by_topic.get(topic)) is not None:
            endpoint.frozen = frozen
            endpoint.refuses_work = frozen is not None or bool(endpoint.draining_reason)

    def describe(self, topic: str, *, schema: bool = False) -> list[MethodDescription]:
        """Return what a topic offers, with JSON Schemas if they are wanted.

        Raises:
            ServiceNotFound: The topic does not exist here.
        """
        return self._get_endpoint(topic).describe(schema=schema)

    def is_description_cached(self, topic: str, *, schema: bool) -> bool:
        """Return whether `describe` has nothing to make for a topic, or nothing to describe."""
        endpoint = self.endpoints_by_topic.get(topic)
        return endpoint is None or endpoint.is_description_cached(schema=schema)

    def endpoints(self) -> list[Endpoint]:
        """Return what is open, by topic."""
        return [endpoint for _, endpoint in sorted(self.endpoints_by_topic.items())]

    def find_method(self, topic: str, name: str) -> Method | None:
        """Return a method that is offered, None when there is none of that name."""
        endpoint = self.endpoints_by_topic.get(topic)
        return endpoint.methods.get(name) if endpoint is not None else None

    def is_configured(self, topic: str) -> bool:
        """Return whether this daemon has a service on a topic, open or not."""
        return topic in self.endpoints_by_topic or topic in self._unavailable

    def is_open(self, topic: str) -> bool:
        """Return whether a topic is open here. Any thread."""
        return topic in self.endpoints_by_topic

    def topics(self) -> list[str]:
        """Return the open topics, sorted."""
        return sorted(self.endpoints_by_topic)

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return the counters of each topic; see `Endpoint.stats`."""
        return {topic: endpoint.stats() for topic, endpoint in sorted(self.endpoints_by_topic.items())}

    def in_flight(self, topic: str) -> int:
        """Return how many requests of a topic have not ended, threads whose caller has left included."""
        endpoint = self.endpoints_by_topic.get(topic)
        return endpoint.in_flight if endpoint is not None else 0

    def find(self, request: Request) -> Endpoint:
        """Return what is to serve a request.

        Raises:
            ServiceNotFound: It is for another host, or there is no such topic here.
            Draining: The topic accepts no new work.
            UnsupportedVersion: The topic does not support it.
        """
        if request.host and request.host != self.host:
            raise ServiceNotFound(
                f"this daemon is {self.host}, the request is for {request.topic} on {request.host}",
                hint="call the daemon on that host",
                topic=request.topic, host=request.host, here=self.host,
            )  # fmt: skip
        endpoint = self._get_endpoint(request.topic)
        if endpoint.draining_reason:
            self._raise_if_restarting(request.topic)
            raise draining_error(endpoint)
        endpoint.check_version(request.version, request.method)
        return endpoint

    def _raise_if_restarting(self, topic: str) -> None:
        if (error := self._restarting.get(topic)) is not None:
            raise copy(error)

    def _get_endpoint(self, topic: str) -> Endpoint:
        found = self.endpoints_by_topic.get(topic)
        if found is None:
            self._raise_if_restarting(topic)
            if (absent := self._unavailable.get(topic)) is not None:
                raise copy(absent)
            raise ServiceNotFound(
                f"service {topic!r} not found on {self.host}",
                hint=suggest(topic, self.endpoints_by_topic),
                topic=topic,
                host=self.host,
            )
        return found
