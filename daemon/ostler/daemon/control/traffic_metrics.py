"""Counters of all messages, for `ostler top`, which computes the differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostler.types import MethodTraffic, TopicTraffic, TrafficCounters

if TYPE_CHECKING:
    from ostler.daemon.connectivity.messaging_stack import MessagingStack
    from ostler.messaging import Endpoint


def collect_traffic(messages: MessagingStack) -> TrafficCounters:
    """Return what was counted so far. On the loop."""
    dispatcher, rpc, events = messages.dispatcher, messages.server.stats(), messages.publisher.stats()
    return TrafficCounters(
        at=dispatcher.clock.monotonic(),
        host=dispatcher.host,
        topics=[topic_traffic(endpoint) for endpoint in dispatcher.endpoints()],
        clients=rpc["clients"],
        in_flight=rpc["in_flight"],
        vanished=rpc["vanished"],
        garbage=_sum_counters(rpc["garbage"], events["garbage"]),
        bad_traces=dispatcher.invalid_traces,
        published=_published_count(events["published"]),
        memory=messages.quotas.memory_accounts.held_bytes,
        memory_refused=messages.quotas.memory_accounts.refused_count,
    )


def topic_traffic(endpoint: Endpoint) -> TopicTraffic:
    """Return what was counted of one topic; methods without calls are left out."""
    methods = [
        MethodTraffic(
            method=method.name,
            requests=stats.requests,
            errors=stats.errors,
            refused=stats.refused,
            in_flight=stats.in_flight,
            seconds=stats.total_seconds,
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


def _sum_counters(*counters: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for counter in counters:
        for name, count in counter.items():
            found[name] = found.get(name, 0) + count
    return found


def _published_count(published: Any) -> int:
    return sum(published.values()) if isinstance(published, dict) else int(published)
