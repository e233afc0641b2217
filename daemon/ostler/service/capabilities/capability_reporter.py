"""Asks services what they offer, each backend separately, and sends it to every scheduler at once."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ostler.aio import TaskOwner
from ostler.bounds import safe_repr
from ostler.errors import Busy, Cancelled, DriverNotReady, DriverStuck, EncodeError, NotFound, OstlerError, StoreError
from ostler.service.capabilities.capability_delivery import CapabilityDelivery
from ostler.service.capabilities.capability_facts import to_plain_facts
from ostler.service.capabilities.service_capabilities import ALL_BACKENDS, CapabilityQuery, ServiceCapabilities
from ostler.service.store_outage import StoreOutage
from ostler.store import CapabilityRecords, ServiceRecords
from ostler.time_text import format_seconds
from ostler.types import CapabilityReport, Json

if TYPE_CHECKING:
    from ostler.messaging.network.routing import Router
    from ostler.service.lifecycle import Service
    from ostler.service.service_spec import HostServices

_log = logging.getLogger(__name__)
_IDLE_INTERVAL = 60.0
"""Seconds to wait when there is nothing to do yet; whatever changes that wakes the reporter."""
_MIN_RETRY_DELAY = 1.0
"""Seconds after which failed capabilities are asked for again; doubled each time."""
_MIN_REQUERY_DELAY = 0.02
_MAX_REQUERY_DELAY = 0.5
"""Bounds of the seconds between a question and the next one, for changes meanwhile: four times what it took."""
_WRITE_INTERVAL = 1.0
"""Seconds between two writes of what one service offers."""
_MAX_BACKENDS = 1000
"""The most backends of one service: all of them are checked, stored and sent with each report."""
_FIRST_READ_TIMEOUT = 2.0
"""Seconds that the first report waits for the operator override of the service."""
_BENIGN_ERRORS = (DriverNotReady, DriverStuck, Busy, Cancelled)
"""Errors of a driver that are not defects: its state says more, or it is only busy."""


class CapabilityReporter:
    """Asks the managers what they offer, stores it, and sends it to the schedulers. On the loop.

    Every backend is asked separately, at `capability_interval` and after each change; none waits for another, and a
    late answer is still used. A report always contains everything that a service offers.

    Args:
        services: The services to ask.
        host: What the host provides: its name, the database, the client that calls the schedulers, the time.
        capability_records: The table of capabilities.
        service_records: The services table, where the operator override is stored.
        router: Knows on which hosts the schedulers are, and the name of this one.
        has_subscriber: Returns whether the daemon of another host listens to this one.
        on_report: Called after a change of what a service offers, that is, of the result of `live_reports`.
    """

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        host: HostServices,
        capability_records: CapabilityRecords,
        service_records: ServiceRecords,
        router: Router,
        has_subscriber: Callable[[str], bool] = lambda _host: False,
        on_report: Callable[[], None] = lambda: None,
    ) -> None:
        self._services = services
        self._store = store = host.store
        self._capability_records = capability_records
        self._service_records = service_records
        self._clock = clock = host.clock
        self._host = router.host
        self.instance = os.urandom(8).hex()
        self._states: dict[str, ServiceCapabilities] = {}
        self._written_sequences: dict[str, int] = {}
        self._last_services: dict[str, Service] = {}
        self._last_sequences: dict[str, int] = {}
        self._on_report = on_report
        self._topics_in_write: set[str] = set()
        self._retry_delays = _RetryDelays()
        self._wake = asyncio.Event()
        self._tasks = TaskOwner("capability reports")
        self._outage = StoreOutage(store, "writing the capabilities table", clock)
        self._delivery = CapabilityDelivery(host.client, router, clock, self._states, self._tasks, has_subscriber)

    # ---------------------------------------------------------------- what others say

    def trigger(self, topic: str) -> None:
        """Ask for all that a service offers and report it at once, with the operator override."""
        self.on_change(topic)
        self._tasks.spawn(self._read_enabled(topic), name=f"whether {topic} is enabled")

    def on_change(self, topic: str, backend: str = "", lease: str = "", released: bool = False) -> None:
        """Ask for a backend of a service, or all, and report it at once; see `Manager.capabilities_changed`."""
        state = self._get_state(topic)
        if lease:
            state.record_lease(backend, lease, self._clock.monotonic(), released=released)
        if not released:
            now = asyncio.get_running_loop().time()
            for name in state.mark_changed(backend):
                source = state.sources[name]
                # After a recent failure with a pause: a failure is a change too, and would trigger itself.
                source.due_at = min(
                    source.due_at, max(now, source.not_before, self._retry_delays.retry_at(topic, name))
                )
        self._wake.set()

    def forget(self, topic: str) -> None:
        """Drop the reports of a service that was removed."""
        self._states.pop(topic, None)
        self._last_services.pop(topic, None)
        self._on_report()

    def on_offer_changed(self, topic: str) -> None:
        """Check at once whether the drivers that may be offered have changed: one is stuck, has failed, or is ready."""
        self._wake.set()

    def live_reports(self) -> list[CapabilityReport]:
        """Return what the services of this host offer now, of those that have said anything."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        return [state.make_report(now, wall) for state in self._states.values() if state.has_reported]

    async def flush(self, timeout: float) -> bool:
        """Wait until changes have been asked for and are known to a scheduler of this host.

        Returns:
            Whether that came within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                self._run_round(asyncio.get_running_loop().time())
                while self._is_pending():
                    await self._delivery.wait_for_progress()
        except TimeoutError:
            return False
        return True

    def _is_pending(self) -> bool:
        soon = asyncio.get_running_loop().time() + _MAX_REQUERY_DELAY
        return any(state.is_pending(soon) for state in self._states.values()) or self._delivery.is_pending(self._host)

    # ---------------------------------------------------------------- the round

    async def run(self) -> None:
        """Report indefinitely."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            self._run_round(now)
            dues = [source.due_at for state in self._states.values() for source in state.sources.values()]
            soonest = min((due for due in dues if due > now), default=now + _IDLE_INTERVAL)
            try:
                async with asyncio.timeout(
                    max(0.0, min(soonest - loop.time(), self._delivery.seconds_to_next_check()))
                ):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _run_round(self, now: float) -> None:
        for service in self._services():
            self._update_service(service, now)
        self._delivery.send_pending()
        seen = {state.topic: state.sequence for state in self._states.values() if state.has_reported}
        if seen != self._last_sequences:
            self._last_sequences = seen
            self._on_report()

    def _update_service(self, service: Service, now: float) -> None:
        state = self._get_state(service.topic)
        if not service.is_running:
            if state.has_offer:
                state.withdraw(f"the service is {service.state_tracker.state}")
                self._schedule_write(state)
            return
        if self._last_services.get(service.topic) is not service:
            self._last_services[service.topic] = service
            state.reset_queries()
        if state.update_offer(service.capability_sources(), withheld := service.withheld_drivers()):
            for name in withheld:  # its own complaint is replaced by the reason why it is withheld
                service.state_tracker.set_problem(_problem_key(name), "")
        for name, source in state.sources.items():
            if source.query_in_progress or source.due_at > now:
                continue
            source.due_at = now + service.options.capability_interval
            question = state.begin_query(name, self._clock.monotonic())
            self._tasks.spawn(self._query(service, state, question), name=f"capabilities of {service.topic} {name}")
        self._schedule_write(state)

    def _get_state(self, topic: str) -> ServiceCapabilities:
        state = self._states.get(topic)
        if state is None:
            state = self._states[topic] = ServiceCapabilities(topic, self._host, self.instance)
        return state

    # ---------------------------------------------------------------- one question

    async def _query(self, service: Service, state: ServiceCapabilities, query: CapabilityQuery) -> None:
        """Ask one source and use its answer, whenever it arrives."""
        topic, name = service.topic, query.source
        self._retry_delays.set_max_delay(topic, name, service.options.capability_interval)
        answer = self._tasks.spawn(self._handle_answer(service, state, query), name=f"answer of {topic} {name}")
        limit = min(service.options.capability_interval, service.options.down_time)
        done, _ = await asyncio.wait({answer}, timeout=limit)
        if not done:
            late = "the last known ones stay in use" if state.has_offer else "it is not offered until then"
            service.state_tracker.set_problem(
                _problem_key(name),
                f"{_describe_source(topic, name)} did not arrive within {format_seconds(limit)}; {late}",
            )

    def _schedule_next_query(self, service: Service, state: ServiceCapabilities, query: CapabilityQuery) -> None:
        """Decide when a source that has just answered is asked again."""
        source = state.sources.get(query.source)
        if source is None:
            return
        now = asyncio.get_running_loop().time()
        took = max(0.0, self._clock.monotonic() - query.asked_at)
        source.not_before = now + min(_MAX_REQUERY_DELAY, max(_MIN_REQUERY_DELAY, 4 * took))
        # A source that takes longer than the interval still gets a pause.
        source.due_at = max(source.due_at, now + min(took, service.options.capability_interval))
        if source.last_change > query.sequence:  # its answer may be from before the change
            source.due_at = max(source.not_before, self._retry_delays.retry_at(service.topic, query.source))
        self._wake.set()

    async def _handle_answer(self, service: Service, state: ServiceCapabilities, query: CapabilityQuery) -> None:
        topic, name = service.topic, query.source
        try:
            answer = await service.capabilities(name)
        except OstlerError as error:
            self._schedule_next_query(service, state, query)
            self._on_query_failed(service, state, query, error)
            return
        self._schedule_next_query(service, state, query)
        if answer is None and name == ALL_BACKENDS:
            state.keep_previous(query)
            self._on_query_succeeded(service, query)
            return
        found, faults = split_answer(topic, name, answer)
        if name in faults:
            self._retry_delays.failed(topic, name)
            state.fail_query(query, faults[name])
        else:
            state.complete_query(query, found, faults)
            if not faults:
                self._on_query_succeeded(service, query)
                return
            self._retry_delays.failed(topic, name)
        service.state_tracker.set_problem(_problem_key(name), "; ".join(faults.values()))

    def _on_query_failed(
        self, service: Service, state: ServiceCapabilities, query: CapabilityQuery, error: OstlerError
    ) -> None:
        name = query.source
        self._retry_delays.failed(service.topic, name)
        source = state.sources.get(name)
        if source is not None:
            source.due_at = self._retry_delays.retry_at(service.topic, name)
        if isinstance(error.__cause__, _BENIGN_ERRORS):
            state.keep_previous(query)
            service.state_tracker.set_problem(_problem_key(name), "")
            return
        state.fail_query(query, error.message)
        service.state_tracker.set_problem(_problem_key(name), error.message)

    def _on_query_succeeded(self, service: Service, query: CapabilityQuery) -> None:
        self._retry_delays.worked(service.topic, query.source)
        service.state_tracker.set_problem(_problem_key(query.source), "")

    # ---------------------------------------------------------------- the store

    def _schedule_write(self, state: ServiceCapabilities) -> None:
        """Schedule storing what a service offers, once it has answered, if it differs from the stored report."""
        if (
            state.has_reported
            and state.topic not in self._topics_in_write
            and self._written_sequences.get(state.topic) != state.sequence
        ):
            self._topics_in_write.add(state.topic)
            self._tasks.spawn(self._write_until_current(state), name=f"store the capabilities of {state.topic}")

    async def _write_until_current(self, state: ServiceCapabilities) -> None:
        """Write what a service offers, and read the operator override, until nothing has changed meanwhile."""
        try:
            if state.enabled is None:
                await self._read_enabled(state.topic)
            while self._written_sequences.get(state.topic) != state.sequence:
                self._written_sequences[state.topic] = state.sequence
                await self._write(state)
                await asyncio.sleep(_WRITE_INTERVAL)
        finally:
            self._topics_in_write.discard(state.topic)

    async def _write(self, state: ServiceCapabilities) -> None:
        topic = state.topic
        report = state.make_report(self._clock.monotonic(), self._clock.wall())

        def write() -> bool:
            self._capability_records.save(report)
            return self._read_enabled_column(topic)

        try:
            self._set_enabled(topic, await self._store.awrite(write, label=f"capabilities of {topic}"))
            self._outage.worked()
        except StoreError as error:
            self._outage.failed(error)

    async def _read_enabled(self, topic: str) -> None:
        try:
            async with asyncio.timeout(_FIRST_READ_TIMEOUT):
                self._set_enabled(topic, await self._store.aread(lambda: self._read_enabled_column(topic)))
        except (StoreError, TimeoutError):
            self._set_enabled(topic, self._get_state(topic).enabled is not False)

    def _read_enabled_column(self, topic: str) -> bool:
        try:
            return self._service_records.get(topic).enabled
        except NotFound:  # the row was deleted; the next heartbeat creates it again, enabled
            return True

    def _set_enabled(self, topic: str, enabled: bool) -> None:
        state = self._get_state(topic)
        if state.enabled is not enabled:
            state.enabled = enabled
            state.sequence += 1
            self._wake.set()

    async def stop(self) -> None:
        """Cancel questions and writes in progress."""
        await self._tasks.cancel(timeout=0.5)


def _problem_key(source: str) -> str:
    return f"capabilities {source}" if source else "capabilities"


def _describe_source(topic: str, source: str) -> str:
    return f"the capabilities of backend {source}" if source else f"capabilities of service {topic}"


def split_answer(topic: str, source: str, answer: Any) -> tuple[dict[str, dict[str, Json]], dict[str, str]]:
    """Return the valid facts of an answer by backend, and why those of others are not valid."""
    if source:
        table: Mapping[Any, Any] = {} if answer is None else {source: answer}
    elif isinstance(answer, Mapping):
        table = answer
    else:
        return {}, {
            source: f"capabilities of service {topic} did not return a table of backends: {safe_repr(answer, 80)}"
        }
    found, faults = {}, {}
    try:
        listed = [(name, facts) for name, facts in table.items() if facts is not None]
    except Exception as error:  # noqa: BLE001 - the table is a plugin's, and so are its methods
        return {}, {
            source: f"capabilities of service {topic} did not return a table of backends: {safe_repr(error, 80)}"
        }
    if len(listed) > _MAX_BACKENDS:
        what = f"capabilities of service {topic} returned {len(listed)} backends, the limit is {_MAX_BACKENDS}"
        return {}, {source: what}
    for name, facts in listed:
        try:
            found[name] = to_plain_facts(name, facts)
        except EncodeError as error:
            faults[safe_repr(name, 80) if not isinstance(name, str) else name] = error.message
    return found, faults


class _RetryDelays:
    """The pause of each source after a failure: longer each time, up to its interval.

    Two good answers in a row reset it: a single one may alternate with failures.
    """

    def __init__(self) -> None:
        self._max_delays: dict[tuple[str, str], float] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._succeeded_once: set[tuple[str, str]] = set()
        self._retry_times: dict[tuple[str, str], float] = {}

    def set_max_delay(self, topic: str, source: str, max_delay: float) -> None:
        """Record the longest pause of a source."""
        self._max_delays[topic, source] = max_delay

    def retry_at(self, topic: str, source: str) -> float:
        """Return the loop's time before which a source is not asked again; minus infinity for at once."""
        return self._retry_times.get((topic, source), -math.inf)

    def failed(self, topic: str, source: str) -> None:
        """Record a failure."""
        key = topic, source
        self._succeeded_once.discard(key)
        times = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(self._max_delays[key], _MIN_RETRY_DELAY * 2.0 ** min(times - 1, 30))
        self._retry_times[key] = asyncio.get_running_loop().time() + pause

    def worked(self, topic: str, source: str) -> None:
        """Record a good answer."""
        key = topic, source
        if key not in self._failures:
            return
        if key in self._succeeded_once:
            self._succeeded_once.discard(key)
            del self._failures[key], self._retry_times[key]
        else:
            self._succeeded_once.add(key)
