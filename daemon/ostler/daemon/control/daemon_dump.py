"""What the daemon is doing right now, in detail: for `ostler dump` and SIGUSR2."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ostler.bounds import TEXT_LIMIT, truncate
from ostler.daemon.process.stack_dump import task_stacks, thread_stacks
from ostler.errors import error_line
from ostler.messaging.wire.transport import SupportsPeers
from ostler.redaction import redact
from ostler.time_text import format_duration, format_seconds

if TYPE_CHECKING:
    from ostler.daemon.active_configuration import ActiveConfiguration
    from ostler.daemon.daemon_parts import DaemonParts
    from ostler.messaging.rpc.call import Call
    from ostler.service import Service
    from ostler.service.service_pools import ServicePools
    from ostler.service.state_tracker import StateTracker
    from ostler.store import Store
    from ostler.types import Peer, PluginStatus

MAX_ROWS = 200
"""Rows of each table of the dump; of further ones there is only the number."""
_MAX_TIMERS = 20

T = TypeVar("T")
RunInThread = Callable[[Callable[[], Any]], Awaitable[Any]]


class DaemonDump:
    """Gathers what the daemon is doing; the configuration is masked. On the loop, at any point of its life.

    Each section is gathered by itself: one that fails says so, and the loop turns between two of them.

    Args:
        state_tracker: The daemon's state.
        active: Its configuration.
        stale_signals: Returns what the watchdog has no fresh evidence of, a line each.
        find_store: Returns its database; None before it is open.
        find_parts: Returns its other parts; None before there are any.
    """

    def __init__(
        self,
        state_tracker: StateTracker,
        active: ActiveConfiguration,
        stale_signals: Callable[[], list[str]],
        find_store: Callable[[], Store | None],
        find_parts: Callable[[], DaemonParts | None],
    ) -> None:
        self._state_tracker = state_tracker
        self._active = active
        self._stale_signals = stale_signals
        self._find_store = find_store
        self._find_parts = find_parts

    async def collect(self, run_in_thread: RunInThread) -> dict[str, Any]:
        """Return all sections, without ever holding up the loop for more than one of them.

        Args:
            run_in_thread: Runs a function on another thread, and returns its result.
        """
        found = {}
        for name, gather in self._loop_sections():
            found[name] = _guarded(gather)
            await asyncio.sleep(0)
        return {**found, **await run_in_thread(partial(_gather, self._thread_sections()))}

    def collect_now(self) -> dict[str, Any]:
        """Return all sections at once, for a signal."""
        return _gather([*self._loop_sections(), *self._thread_sections()])

    def _loop_sections(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        parts, store = self._find_parts(), self._find_store()
        services = list(parts.runtime.group) if parts is not None else []
        yield "daemon", self._daemon
        yield "watchdog", self._stale_signals
        yield "services", lambda: {service.topic: _service_dump(service) for service in services}
        yield "pools", lambda: {service.topic: _pools_dump(service.pools) for service in services}
        yield "plugins", lambda: [_plugin_dump(plugin) for plugin in self._active.plugins.statuses()]
        if parts is None:
            yield from ((name, dict) for name in ("messages", "audit"))
        else:
            yield from _parts_sections(parts)
        yield "store", lambda: _store_dump(store) if store is not None else {}
        yield "timers", _timers
        yield "tasks", task_stacks

    def _thread_sections(self) -> list[tuple[str, Callable[[], Any]]]:
        """Return what needs the file system, or takes long: to be gathered on any thread."""
        parts = self._find_parts()
        read_values = self._active.values_reader(list(parts.runtime.group) if parts is not None else ())
        return [
            ("threads", thread_stacks),
            ("process", _process_facts),
            ("versions", _versions),
            ("configuration", lambda: {each.path: f"{each.value!r} ({each.origin})" for each in read_values()}),
        ]

    def _daemon(self) -> dict[str, Any]:
        tracker = self._state_tracker
        return {"host": self._active.running.daemon.host, "state": str(tracker.state), "why": tracker.why}


def _parts_sections(parts: DaemonParts) -> Iterator[tuple[str, Callable[[], Any]]]:
    messaging, runtime = parts.messaging, parts.runtime
    dispatcher = messaging.dispatcher
    yield "messages", messaging.stats
    yield "connections", lambda: {name: _peers_dump(link) for name, link in messaging.links().items()}
    yield (
        "requests",
        lambda: limited_rows(
            dispatcher.in_flight_since(-math.inf), partial(_request_dump, now=dispatcher.clock.monotonic())
        ),
    )
    yield "streams", lambda: limited_rows(dispatcher.streams.rows() if dispatcher.streams is not None else ())
    yield "operations", lambda: {"running": runtime.operations.running, "problems": runtime.operations.problems()}
    yield (
        "periodic",
        lambda: limited_rows(
            f"{task.service}.{task.task}: next {task.next_run:.3f}, runs {task.runs}, errors {task.errors}"
            for task in runtime.periodic_scheduler.statuses()
        ),
    )
    yield "event handlers", lambda: limited_rows(msgspec.to_builtins(each) for each in runtime.event_handlers())
    yield "audit", parts.audit_service.log.stats


def _process_facts() -> dict[str, Any]:
    from ostler.daemon.process.process_facts import process_facts  # 20 ms: only for a dump, and on its thread

    return process_facts()


def _versions() -> dict[str, Any]:
    from ostler.daemon.process.process_facts import versions  # as above

    return versions()


def _gather(sections: Iterable[tuple[str, Callable[[], Any]]]) -> dict[str, Any]:
    return {name: _guarded(gather) for name, gather in sections}


def _guarded(gather: Callable[[], Any]) -> Any:
    try:
        return gather()
    except Exception as error:  # noqa: BLE001 - a dump is wanted most when something is broken: the rest must be there
        return f"(could not be gathered: {redact(error_line(error))})"


def limited_rows(rows: Iterable[T], describe: Callable[[T], Any] = lambda row: row) -> list[Any]:
    """Return the first rows as they are shown, and how many are left out, of which nothing is made.

    Args:
        rows: What there is.
        describe: Returns what is shown of one.
    """
    iterator = iter(rows)
    shown = [describe(row) for row in islice(iterator, MAX_ROWS)]
    left = sum(1 for _ in iterator)
    return [*shown, f"{left} more"] if left else shown


def _plugin_dump(plugin: PluginStatus) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "state": str(plugin.state),
        "version": plugin.version,
        "why": plugin.why,
        "since": plugin.since,
        "errors": plugin.errors,
        "last_error": plugin.last_error,
        "crashes": plugin.crashes,
    }


def _service_dump(service: Service) -> dict[str, Any]:
    return {
        "state": str(service.state_tracker.state),
        "why": service.state_tracker.why,
        "step": service.step,
        "working": service.in_progress(),
        "background": [f"{task.name} ({task.kind}) {task.state}" for task in service.status().tasks],
    }


def _pools_dump(pools: ServicePools | None) -> dict[str, Any]:
    if pools is None:
        return {}
    return {
        name: {
            "threads": pool.thread_count,
            "size": pool.size,
            "queued": pool.queued_count,
            "running": limited_rows(
                f"{job.label} on {job.thread} for {format_duration(job.seconds)}" for job in pool.running_jobs()
            ),
        }
        for name, pool in pools.all_pools().items()
    }


def _store_dump(store: Store) -> dict[str, Any]:
    job, outage = store.current_job(), store.outage
    return {
        **store.stats(),
        "writing": f"{job.label} for {format_duration(job.seconds)}" if job is not None else "",
        "outage": outage.why if outage.is_active else "",
        "problems": store.problems(),
    }


def _peers_dump(link: object) -> Any:
    """Return who is connected, and how often."""
    if not isinstance(link, SupportsPeers):
        return "(not listed)"
    counts: Counter[str] = Counter(map(_peer_name, link.peers()))
    return {"connections": sum(counts.values()), "by peer": dict(counts.most_common(MAX_ROWS))}


def _peer_name(peer: Peer) -> str:
    return f"{peer.name} pid {peer.pid}" if peer.pid > 0 else peer.name


def _request_dump(call: Call, now: float) -> dict[str, Any]:
    context = call.context
    deadline = context.deadline
    return {
        "method": call.full_name,
        "id": truncate(call.request.request_id, TEXT_LIMIT),
        "from": call.origin.name,
        "role": str(context.role),
        "for": round(now - call.arrived_at, 3),
        "time left": None if deadline is None else round(deadline - now, 3),
        "state": "answered" if call.is_answered else "running" if call.is_started else "waiting",
    }


def _timers() -> dict[str, Any]:
    """Return the timers of the loop, the next ones first."""
    loop = asyncio.get_running_loop()
    scheduled: list[asyncio.TimerHandle] = list(getattr(loop, "_scheduled", ()))
    now = loop.time()
    following = heapq.nsmallest(_MAX_TIMERS, scheduled, key=asyncio.TimerHandle.when)
    return {
        "count": len(scheduled),
        "next": [
            f"in {format_seconds(max(0.0, handle.when() - now), 2)}: {_callback_name(handle)}" for handle in following
        ],
    }


def _callback_name(handle: asyncio.TimerHandle) -> str:
    if handle.cancelled():
        return "(cancelled)"
    callback: Any = getattr(handle, "_callback", None)
    callback = getattr(callback, "func", callback)  # that of a `partial`
    return str(getattr(callback, "__qualname__", type(callback).__name__))
