"""What was counted of all messages, for `ostler top`: it takes the differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostler.types import MethodTraffic, TopicTraffic, Traffic

if TYPE_CHECKING:
    from ostler.daemon.core import Daemon
    from ostler.messaging import Endpoint


def traffic_of(daemon: Daemon) -> Traffic:
    """Return what this daemon has counted so far. On the loop."""
    messages, now = daemon.messages, daemon.clock.monotonic()
    if messages is None:
        return Traffic(at=now, host=daemon.host)
    dispatcher, rpc, events = messages.dispatcher, messages.server.stats(), messages.publisher.stats()
    return Traffic(
        at=now,
        host=daemon.host,
        topics=[topic_traffic(endpoint) for endpoint in dispatcher.endpoints()],
        clients=rpc["clients"],
        in_flight=rpc["in_flight"],
        vanished=rpc["vanished"],
        garbage=_sum(rpc["garbage"], events["garbage"]),
        bad_traces=dispatcher.bad_traces,
        published=_count(events["published"]),
        memory=messages.shares.memory.held,
        memory_refused=messages.shares.memory.refused,
    )


def topic_traffic(endpoint: Endpoint) -> TopicTraffic:
    """Return what was counted of one topic; methods that nobody has called are left out."""
    methods = [
        MethodTraffic(
            method=method.name,
            requests=stats.requests,
            errors=stats.errors,
            refused=stats.refused,
            in_flight=stats.in_flight,
            seconds=stats.seconds,
            buckets=dict(stats.buckets),
        )
        for method in endpoint.methods.values()
        if (stats := method.stats).requests or stats.refused
    ]
    counted = endpoint.stats()
    return TopicTraffic(
        topic=endpoint.topic,
        requests=counted["requests"],
        refused=counted["refused"],
        in_flight=counted["in_flight"],
        queued=counted["queued"],
        errors=counted["errors"],
        methods=methods,
    )


def _sum(*counters: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for counter in counters:
        for name, count in counter.items():
            found[name] = found.get(name, 0) + count
    return found


def _count(published: Any) -> int:
    return sum(published.values()) if isinstance(published, dict) else int(published)
