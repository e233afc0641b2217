"""Has services say what they offer, each backend by itself, and has every scheduler know it at once."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ostler.aio import TaskOwner
from ostler.bounds import shown
from ostler.clock import Clock
from ostler.errors import (
    Busy,
    CallCancelled,
    DriverNotReady,
    DriverStuck,
    EncodeFailed,
    NotFound,
    OstlerError,
    StoreError,
)
from ostler.service.capability_delivery import CapabilityDelivery
from ostler.service.capability_facts import plain_facts
from ostler.service.capability_state import WHOLE, Question, ServiceCapabilities
from ostler.service.report import StoreOutage
from ostler.store import CapabilityRecords, ServiceRecords, Store
from ostler.types import CapabilityReport, Json

if TYPE_CHECKING:
    from ostler.messaging import LocalServiceClient
    from ostler.service.lifecycle import Service

_log = logging.getLogger(__name__)
_IDLE = 60.0
"""Seconds to wait when there is nothing to do yet; whatever changes that wakes the reporter."""
_FIRST_PAUSE = 1.0
"""Seconds after which capabilities that could not be had are asked for again; twice as long each time."""
_SOONEST = 0.02
_LATEST = 0.5
"""Seconds between the end of a question and the next one, for changes that come meanwhile: four times what it took."""
_KEEP_EVERY = 1.0
"""Seconds between two writes of what one service offers."""
_BACKENDS_LIMIT = 1000
"""Backends of one service: each of them is looked at, kept and sent at each report."""
_FIRST_READ = 2.0
"""Seconds that the first report waits for what the operator has said of the service."""
_NO_FAULT = (DriverNotReady, DriverStuck, Busy, CallCancelled)
"""What a driver may answer without being at fault: its state says more, or it is only busy."""


class CapabilityReporter:
    """Asks the managers what they offer, keeps it in the store, and sends it to the schedulers. On the loop.

    Every backend is asked by itself, at `capability_interval` and after each change; none waits for another, and an
    answer counts whenever it comes. What is sent is always the whole of what a service offers.

    Args:
        services: The services to ask.
        store: The database.
        records: The table of capabilities.
        table: The services table, where the operator's word is kept.
        client: Reaches the schedulers.
        clock: The source of time.
        host: The name of this host.
        tells: Returns whether the daemon of another host is told of this one anyway.
    """

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        store: Store,
        records: CapabilityRecords,
        table: ServiceRecords,
        client: LocalServiceClient,
        clock: Clock,
        host: str,
        tells: Callable[[str], bool] = lambda _host: False,
    ) -> None:
        self._services = services
        self._store = store
        self._records = records
        self._table = table
        self._clock = clock
        self._host = host
        self.instance = os.urandom(8).hex()
        self._states: dict[str, ServiceCapabilities] = {}
        self._kept: dict[str, int] = {}
        self._last: dict[str, Service] = {}
        self._seen: dict[str, int] = {}
        self.on_report: Callable[[], None] = lambda: None
        """Called after what a service offers has changed: `live` returns something else then."""
        self._keeping: set[str] = set()
        self._pauses = _Pauses()
        self._wake = asyncio.Event()
        self._tasks = TaskOwner("capability reports")
        self._outage = StoreOutage(store, "the table of capabilities", clock)
        self._delivery = CapabilityDelivery(client, clock, self._states, self._tasks, tells)

    # ---------------------------------------------------------------- what others say

    def poke(self, topic: str) -> None:
        """Have all that a service offers asked for and reported at once, with what the operator says of it."""
        self.changed(topic)
        self._tasks.spawn(self._read_enabled(topic), name=f"whether {topic} is enabled")

    def changed(self, topic: str, backend: str = "", lease: str = "", released: bool = False) -> None:
        """Have a backend of a service, or all, asked for and reported at once; see `Manager.capabilities_changed`."""
        state = self._state(topic)
        if lease:
            state.lease(backend, lease, self._clock.monotonic(), released=released)
        if not released:
            now = asyncio.get_running_loop().time()
            for name in state.changed(backend):
                source = state.sources[name]
                # Where it failed not long ago, after a pause: a failure is a change too, and would call for itself.
                source.due = min(source.due, max(now, source.not_before, self._pauses.until(topic, name)))
        self._wake.set()

    def offer_changed(self, topic: str) -> None:
        """Look at once whether other drivers may be offered than before: one is stuck, has failed, or is ready."""
        self._wake.set()

    def live(self) -> list[CapabilityReport]:
        """Return what the services of this host offer now, of those that have said anything."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        return [state.report(now, wall) for state in self._states.values() if state.spoken]

    async def flush(self, timeout: float) -> bool:
        """Wait until what has changed has been asked for and is known to a scheduler of this host.

        Returns:
            Whether that came within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                self._round(asyncio.get_running_loop().time())
                while self._pending():
                    await self._delivery.progress()
        except TimeoutError:
            return False
        return True

    def _pending(self) -> bool:
        soon = asyncio.get_running_loop().time() + _LATEST
        return any(state.pending(soon) for state in self._states.values()) or self._delivery.pending(self._host)

    # ---------------------------------------------------------------- the round

    async def run(self) -> None:
        """Report for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            self._round(now)
            dues = [source.due for state in self._states.values() for source in state.sources.values()]
            soonest = min((due for due in dues if due > now), default=now + _IDLE)
            try:
                async with asyncio.timeout(max(0.0, min(soonest - loop.time(), self._delivery.look_again()))):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _round(self, now: float) -> None:
        for service in self._services():
            self._look_at(service, now)
        self._delivery.start()
        seen = {state.topic: state.sequence for state in self._states.values() if state.spoken}
        if seen != self._seen:
            self._seen = seen
            self.on_report()

    def _look_at(self, service: Service, now: float) -> None:
        state = self._state(service.topic)
        if not service.running:
            if state.offers:
                state.withdraw(f"the service is {service.states.state}")
                self._keep_soon(state)
            return
        if self._last.get(service.topic) is not service:
            self._last[service.topic] = service
            state.begin_again()
        if state.offer(service.capability_sources(), withheld := service.withheld()):
            for name in withheld:  # what it said of itself is no news any more; why it is withheld is
                service.states.complain(_about(name), "")
        for name, source in state.sources.items():
            if source.asking or source.due > now:
                continue
            source.due = now + service.options.capability_interval
            question = state.ask(name, self._clock.monotonic())
            self._tasks.spawn(self._ask(service, state, question), name=f"capabilities of {service.topic} {name}")
        self._keep_soon(state)

    def _state(self, topic: str) -> ServiceCapabilities:
        state = self._states.get(topic)
        if state is None:
            state = self._states[topic] = ServiceCapabilities(topic, self._host, self.instance)
        return state

    # ---------------------------------------------------------------- one question

    async def _ask(self, service: Service, state: ServiceCapabilities, question: Question) -> None:
        """Ask one source and take what it says, whenever that comes."""
        topic, name = service.topic, question.source
        self._pauses.begin(topic, name, service.options.capability_interval)
        answer = self._tasks.spawn(self._answer(service, state, question), name=f"answer of {topic} {name}")
        limit = min(service.options.capability_interval, service.options.down_time)
        done, _ = await asyncio.wait({answer}, timeout=limit)
        if not done:
            late = "what it said before counts on" if state.offers else "it is not offered before"
            service.states.complain(_about(name), f"{_what(topic, name)} did not come within {limit:g} s; {late}")

    def _plan(self, service: Service, state: ServiceCapabilities, question: Question) -> None:
        """Decide when a source is asked again that has just answered."""
        source = state.sources.get(question.source)
        if source is None:
            return
        now = asyncio.get_running_loop().time()
        took = max(0.0, self._clock.monotonic() - question.asked_at)
        source.not_before = now + min(_LATEST, max(_SOONEST, 4 * took))
        # One that takes longer than the interval is not asked without a pause.
        source.due = max(source.due, now + min(took, service.options.capability_interval))
        if source.changed > question.number:  # what it has said may be from before the change
            source.due = max(source.not_before, self._pauses.until(service.topic, question.source))
        self._wake.set()

    async def _answer(self, service: Service, state: ServiceCapabilities, question: Question) -> None:
        topic, name = service.topic, question.source
        try:
            answer = await service.capabilities(name)
        except OstlerError as error:
            self._plan(service, state, question)
            self._failed(service, state, question, error)
            return
        self._plan(service, state, question)
        if answer is None and name == WHOLE:
            state.no_news(question)
            self._worked(service, question)
            return
        found, faults = _sorted_out(topic, name, answer)
        if name in faults:
            self._pauses.failed(topic, name)
            state.failed(question, faults[name])
        else:
            state.answered(question, found, faults)
            if not faults:
                self._worked(service, question)
                return
            self._pauses.failed(topic, name)
        service.states.complain(_about(name), "; ".join(faults.values()))

    def _failed(self, service: Service, state: ServiceCapabilities, question: Question, error: OstlerError) -> None:
        name = question.source
        self._pauses.failed(service.topic, name)
        source = state.sources.get(name)
        if source is not None:
            source.due = self._pauses.until(service.topic, name)
        if isinstance(error.__cause__, _NO_FAULT):
            state.no_news(question)
            service.states.complain(_about(name), "")
            return
        state.failed(question, error.message)
        service.states.complain(_about(name), error.message)

    def _worked(self, service: Service, question: Question) -> None:
        self._pauses.worked(service.topic, question.source)
        service.states.complain(_about(question.source), "")

    # ---------------------------------------------------------------- the store

    def _keep_soon(self, state: ServiceCapabilities) -> None:
        """Have what a service offers kept, once it has said anything, when it is another than is kept."""
        if state.spoken and state.topic not in self._keeping and self._kept.get(state.topic) != state.sequence:
            self._keeping.add(state.topic)
            self._tasks.spawn(self._keep(state), name=f"keep the capabilities of {state.topic}")

    async def _keep(self, state: ServiceCapabilities) -> None:
        """Write what a service offers, and read what the operator says of it, until there is no news."""
        try:
            if state.enabled is None:
                await self._read_enabled(state.topic)
            while self._kept.get(state.topic) != state.sequence:
                self._kept[state.topic] = state.sequence
                await self._write(state)
                await asyncio.sleep(_KEEP_EVERY)
        finally:
            self._keeping.discard(state.topic)

    async def _write(self, state: ServiceCapabilities) -> None:
        topic = state.topic
        report = state.report(self._clock.monotonic(), self._clock.wall())

        def write() -> bool:
            self._records.put(report)
            return self._enabled_in_table(topic)

        try:
            self._take_enabled(topic, await self._store.awrite(write, label=f"capabilities of {topic}"))
            self._outage.worked()
        except StoreError as error:
            self._outage.failed(error)

    async def _read_enabled(self, topic: str) -> None:
        try:
            async with asyncio.timeout(_FIRST_READ):
                self._take_enabled(topic, await self._store.aread(lambda: self._enabled_in_table(topic)))
        except (StoreError, TimeoutError):
            self._take_enabled(topic, self._state(topic).enabled is not False)

    def _enabled_in_table(self, topic: str) -> bool:
        try:
            return self._table.get(topic).enabled
        except NotFound:  # somebody has deleted the row; the next heartbeat brings it back, enabled
            return True

    def _take_enabled(self, topic: str, enabled: bool) -> None:
        state = self._state(topic)
        if state.enabled is not enabled:
            state.enabled = enabled
            state.sequence += 1
            self._wake.set()

    async def stop(self) -> None:
        """End what is under way."""
        await self._tasks.cancel(timeout=0.5)


def _about(source: str) -> str:
    return f"capabilities {source}" if source else "capabilities"


def _what(topic: str, source: str) -> str:
    return f"the capabilities of backend {source}" if source else f"capabilities of service {topic}"


def _sorted_out(topic: str, source: str, answer: Any) -> tuple[dict[str, dict[str, Json]], dict[str, str]]:
    """Return the facts of an answer by backend, and why those of others cannot be used."""
    if source:
        table: Mapping[Any, Any] = {} if answer is None else {source: answer}
    elif isinstance(answer, Mapping):
        table = answer
    else:
        return {}, {source: f"capabilities of service {topic} returned no table of backends: {shown(answer, 80)}"}
    found, faults = {}, {}
    try:
        listed = [(name, facts) for name, facts in table.items() if facts is not None]
    except Exception as error:  # noqa: BLE001 - the table is a plugin's, and so are its methods
        return {}, {source: f"capabilities of service {topic} returned no table of backends: {shown(error, 80)}"}
    if len(listed) > _BACKENDS_LIMIT:
        what = f"capabilities of service {topic} returned {len(listed)} backends, the limit is {_BACKENDS_LIMIT}"
        return {}, {source: what}
    for name, facts in listed:
        try:
            found[name] = plain_facts(name, facts)
        except EncodeFailed as error:
            faults[shown(name, 80) if not isinstance(name, str) else name] = error.message
    return found, faults


class _Pauses:
    """How long each source is left alone after it failed: longer each time, up to its interval.

    Two answers in a row that are good end that: one alone may be each other one.
    """

    def __init__(self) -> None:
        self._intervals: dict[tuple[str, str], float] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._good: set[tuple[str, str]] = set()
        self._until: dict[tuple[str, str], float] = {}

    def begin(self, topic: str, source: str, interval: float) -> None:
        """Take note of the longest pause of a source."""
        self._intervals[topic, source] = interval

    def until(self, topic: str, source: str) -> float:
        """Return the loop's time before which a source is not asked again; below all times for at once."""
        return self._until.get((topic, source), -math.inf)

    def failed(self, topic: str, source: str) -> None:
        """Take note of a failure."""
        key = topic, source
        self._good.discard(key)
        times = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(self._intervals[key], _FIRST_PAUSE * 2.0 ** min(times - 1, 30))
        self._until[key] = asyncio.get_running_loop().time() + pause

    def worked(self, topic: str, source: str) -> None:
        """Take note of a good answer."""
        key = topic, source
        if key not in self._failures:
            return
        if key in self._good:
            self._good.discard(key)
            del self._failures[key], self._until[key]
        else:
            self._good.add(key)
