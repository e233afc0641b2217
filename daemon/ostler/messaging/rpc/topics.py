"""Which topics are open here, and who may call what on them."""

from __future__ import annotations

import logging
from copy import copy
from typing import Any

from ostler.errors import Conflict, Draining, OstlerError, TargetNotFound
from ostler.messaging.envelope import Request
from ostler.messaging.policy import Policy
from ostler.messaging.rpc.endpoint import Endpoint, Method
from ostler.messaging.rpc.refusals import not_started, starting, stopped
from ostler.spelling import suggest
from ostler.types import MethodDescription

_log = logging.getLogger(__name__)


class Topics:
    """The open topics of a daemon. On the loop's thread only, where nothing else is said.

    Args:
        host: The host that this daemon is.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._policy = Policy()
        self.endpoints_by_topic: dict[str, Endpoint] = {}
        """For looking up, by whoever holds this; changed here only."""
        self._absent: dict[str, OstlerError] = {}
        """What callers of a topic are told that this daemon has, and that is not open."""

    def expect(self, topic: str) -> None:
        """Take note that a topic is to be opened: until it is, its callers are told to come again."""
        self._absent[topic] = starting(topic, self.host)

    def give_up(self, topic: str, why: str) -> None:
        """Take note that a topic is not opened any more; with an empty `why` because all has been stopped."""
        self._absent[topic] = not_started(topic, self.host, why) if why else stopped(topic, self.host)

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Open a topic.

        Raises:
            Conflict: The topic is open already.
        """
        if endpoint.topic in self.endpoints_by_topic:
            raise Conflict(f"the topic {endpoint.topic} is open already", topic=endpoint.topic)
        self.endpoints_by_topic[endpoint.topic] = endpoint
        self._absent.pop(endpoint.topic, None)
        self._apply(endpoint)

    def set_policy(self, policy: Policy) -> None:
        """Put other roles into force, for every call that comes from now on, over connections that stand as well."""
        if policy.rules == self._policy.rules:
            return
        self._policy = policy
        for endpoint in self.endpoints_by_topic.values():
            self._apply(endpoint)

    def _apply(self, endpoint: Endpoint) -> None:
        for change in endpoint.apply(self._policy):
            if change.opens:
                text = "[access.methods] opens %s to the role %s; its author asks for %s"
                _log.warning(text, change.where, change.needs, change.asked)
            else:
                _log.info("[access.methods] keeps %s for %s instead of %s", change.where, change.needs, change.asked)

    def remove_endpoint(self, topic: str) -> None:
        """Close a topic; what is under way goes on, and its callers are answered."""
        self.endpoints_by_topic.pop(topic, None)

    def set_draining(self, topic: str, why: str) -> None:
        """Refuse new requests for a topic from now on; with an empty `why`, take them again."""
        if (endpoint := self.endpoints_by_topic.get(topic)) is not None:
            endpoint.draining = why

    def describe(self, topic: str, *, schema: bool = False) -> list[MethodDescription]:
        """Return what a topic offers, with JSON Schemas if they are wanted.

        Raises:
            TargetNotFound: There is no such topic here.
        """
        return self._endpoint(topic).describe(schema=schema)

    def is_described(self, topic: str, *, schema: bool) -> bool:
        """Return whether `describe` has nothing to make for a topic, or nothing to describe."""
        endpoint = self.endpoints_by_topic.get(topic)
        return endpoint is None or endpoint.is_described(schema=schema)

    def endpoints(self) -> list[Endpoint]:
        """Return what is open, by topic."""
        return [endpoint for _, endpoint in sorted(self.endpoints_by_topic.items())]

    def method_at(self, topic: str, name: str) -> Method | None:
        """Return a method that is offered, None when there is none of that name."""
        endpoint = self.endpoints_by_topic.get(topic)
        return endpoint.methods.get(name) if endpoint is not None else None

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
            TargetNotFound: It is for another host, or there is no such topic here.
            Draining: The topic takes no new work.
            UnsupportedVersion: The topic does not understand it.
        """
        if request.host and request.host != self.host:
            raise TargetNotFound(
                f"this daemon is {self.host}, the request is for {request.topic} on {request.host}",
                hint="ask the daemon on that host",
                topic=request.topic, host=request.host, here=self.host,
            )  # fmt: skip
        endpoint = self._endpoint(request.topic)
        if endpoint.draining:
            raise Draining(
                f"{request.topic} takes no new work: {endpoint.draining}", topic=request.topic, why=endpoint.draining
            )
        endpoint.check_version(request.version, request.method)
        return endpoint

    def _endpoint(self, topic: str) -> Endpoint:
        found = self.endpoints_by_topic.get(topic)
        if found is None:
            if (absent := self._absent.get(topic)) is not None:
                raise copy(absent)
            raise TargetNotFound(
                f"there is no service {topic!r} on {self.host}",
                hint=suggest(topic, self.endpoints_by_topic),
                topic=topic,
                host=self.host,
            )
        return found
