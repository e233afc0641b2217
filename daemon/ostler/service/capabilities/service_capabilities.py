"""What one service is known to offer to schedulers: the content of its next report. No I/O, on the loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ostler.bounds import WHY_LIMIT, escape_surrogates, truncate
from ostler.redaction import redact
from ostler.types import CapabilityReport, Json

ALL_BACKENDS = ""
"""The source of a manager that answers for all of its backends at once."""
_MAX_LEASES = 2000
_LEASE_REPORT_TIME = 60.0
"""Seconds for which the start or end of a lease is reported: longer than the interval at which schedulers look."""
_MAX_FACTS_SIZE = 1024 * 1024
"""Characters of all facts of one service, roughly; backends beyond it are withheld."""


class CapabilityQuery(NamedTuple):
    """A question for the capabilities of a source: its number, and when it was asked by the monotonic clock."""

    source: str
    sequence: int
    asked_at: float


class _BackendFacts(NamedTuple):
    facts: dict[str, Json]
    as_of: float
    source: str


class _CapabilitySource:
    """When one source is due (loop's time), and the last change that its answers cover."""

    __slots__ = ("due_at", "last_answered", "last_change", "not_before", "query_in_progress")

    def __init__(self, last_change: int) -> None:
        self.due_at = 0.0
        self.not_before = 0.0
        self.last_change = last_change
        self.last_answered = 0
        self.query_in_progress = 0
        """The number of the question that is in progress, 0 for none."""


class _ReportedLease:
    """A lease of which the service has heard."""

    __slots__ = ("backend", "is_over", "report_until", "sequence")

    def __init__(self, backend: str, sequence: int, report_until: float | None) -> None:
        self.backend = backend
        self.sequence = sequence
        self.report_until = report_until
        """When it stops being reported; for an ended lease None until it has been reported."""
        self.is_over = False


class ServiceCapabilities:
    """What one service offers: facts by backend, each with the time of its question, and what is withheld.

    Changes, questions and leases are numbered from one counter. An answer covers everything with a lower number than
    its question; no clock is used for that.

    Args:
        topic: The topic of the service.
        host: The name of this host.
        instance: The id of this run of the daemon.
    """

    def __init__(self, topic: str, host: str, instance: str) -> None:
        self.topic = topic
        self.host = host
        self.instance = instance
        self.sequence = 0
        self.enabled: bool | None = None
        """Whether an operator has left the service enabled; None before that has been read."""
        self.has_reported = False
        """Whether there is anything to report: it has answered, or something is withheld."""
        self.sources: dict[str, _CapabilitySource] = {}
        self.withheld: dict[str, str] = {}
        self.faults: dict[str, str] = {}
        """Backends, or the source, whose last answer was not valid: the reasons."""
        self._facts: dict[str, _BackendFacts] = {}
        self._leases: dict[str, _ReportedLease] = {}
        self._sequence_counter = itertools.count(1)

    # ---------------------------------------------------------------- what changes

    def mark_changed(self, backend: str) -> list[str]:
        """Record that a backend (or all: empty) has changed; return the sources that must be asked."""
        number = next(self._sequence_counter)
        names = [name for name in self.sources if not backend or name in (backend, ALL_BACKENDS)]
        for name in names:
            self.sources[name].last_change = number
        return names

    def record_lease(self, backend: str, lease: str, now: float, *, released: bool) -> None:
        """Record that the work for a lease has begun and is counted from now on, or that nothing was taken."""
        known = self._leases.pop(lease, None)
        while len(self._leases) >= _MAX_LEASES:
            del self._leases[next(iter(self._leases))]
        number = next(self._sequence_counter)
        if known is not None and known.is_over:
            self._leases[lease] = known
            return
        self._leases[lease] = _ReportedLease(backend, number, now + _LEASE_REPORT_TIME)
        if released:
            self._end_lease(self._leases[lease])
        self.sequence += 1

    def update_offer(self, sources: Iterable[str], withheld: Mapping[str, str]) -> bool:
        """Set the sources and the withheld backends; return whether the report has changed."""
        names = dict.fromkeys(sources)
        for name in [name for name in names if name not in self.sources]:
            self.sources[name] = _CapabilitySource(last_change=next(self._sequence_counter))
        for name in [
            name for name, source in self.sources.items() if name not in names and not source.query_in_progress
        ]:
            del self.sources[name]
        told = {name: escape_surrogates(truncate(redact(why), WHY_LIMIT)) for name, why in withheld.items()}
        if told == self.withheld:
            return False
        for name in self.withheld.keys() - told.keys():  # a backend that returns is asked again before it is offered
            for source in self.mark_changed(name):
                self.sources[source].due_at = 0.0
        self.withheld = told
        for name in told:
            self._facts.pop(name, None)
        self.has_reported = True
        self.sequence += 1
        return True

    def withdraw(self, why: str) -> None:
        """Withdraw everything."""
        self.sources = {name: source for name, source in self.sources.items() if source.query_in_progress}
        self.withheld = dict.fromkeys([*self._facts, *self.withheld], why)
        self._facts.clear()
        self.sequence += 1

    @property
    def has_offer(self) -> bool:
        """Whether it offers anything now."""
        return bool(self._facts)

    # ---------------------------------------------------------------- questions and answers

    def begin_query(self, name: str, now: float) -> CapabilityQuery:
        """Start a question."""
        question = CapabilityQuery(name, next(self._sequence_counter), now)
        self.sources[name].query_in_progress = question.sequence
        return question

    def complete_query(
        self, query: CapabilityQuery, facts_by_backend: Mapping[str, dict[str, Json]], faults: Mapping[str, str]
    ) -> None:
        """Apply an answer, however late: facts by backend, and the backends whose answer is not valid.

        Earlier facts of the same source about other backends are dropped.
        """
        source = self._finish_query(query)
        if source is None:
            return
        for name in [name for name, old in self._facts.items() if old.source == query.source]:
            del self._facts[name]
        room = _MAX_FACTS_SIZE - sum(_facts_size(old.facts) for old in self._facts.values())
        kept = {} if query.source == ALL_BACKENDS else self.faults
        self.faults = {name: why for name, why in kept.items() if name != query.source}
        self.faults |= faults
        for name, facts in facts_by_backend.items():
            room -= _facts_size(facts)
            if room < 0:
                self.faults[name] = f"the capabilities of {self.topic} have more than {_MAX_FACTS_SIZE} characters"
            elif name not in self.withheld:
                self._facts[name] = _BackendFacts(facts, query.asked_at, query.source)
        for lease in self._leases.values():
            if lease.sequence < query.sequence and query.source in (ALL_BACKENDS, lease.backend):
                self._end_lease(lease)
        self.has_reported = True
        self.sequence += 1

    def keep_previous(self, query: CapabilityQuery) -> None:
        """Record a question without an answer: the facts before it stay valid."""
        self._finish_query(query)

    def reset_queries(self) -> None:
        """Forget the questions in progress: the manager they were put to is gone."""
        self.sources.clear()

    def fail_query(self, query: CapabilityQuery, why: str) -> None:
        """Record that a source failed to answer: its backends are withheld."""
        if self._finish_query(query) is None:
            return
        self.faults[query.source] = why
        for name in [name for name, old in self._facts.items() if old.source == query.source]:
            del self._facts[name]
        self.sequence += 1

    def _finish_query(self, query: CapabilityQuery) -> _CapabilitySource | None:
        source = self.sources.get(query.source)
        if source is None or source.query_in_progress != query.sequence:
            return None
        source.query_in_progress, source.last_answered = 0, query.sequence
        return source

    def is_pending(self, before: float) -> bool:
        """Whether a change is not covered by an answer yet, and will be asked for before `before`."""
        sources = self.sources.values()
        return any(
            one.last_answered < one.last_change and (one.query_in_progress > 0 or one.due_at <= before)
            for one in sources
        )

    # ---------------------------------------------------------------- the report

    def make_report(self, now: float, wall: float) -> CapabilityReport:
        """Return the report as it is at this moment."""
        for key, lease in list(self._leases.items()):
            if lease.report_until is None:
                lease.report_until = now + _LEASE_REPORT_TIME
            elif lease.report_until < now:
                del self._leases[key]
        withheld = {
            name: "its capabilities have not been received yet"
            for name in self.sources
            if name and not self._has_backend(name)
        }
        withheld |= {name: truncate(why, WHY_LIMIT) for name, why in self.faults.items() if name}
        return CapabilityReport(
            topic=self.topic,
            host=self.host,
            backends={name: known.facts for name, known in sorted(self._facts.items())},
            reported_at=wall,
            enabled=self.enabled is not False,
            instance=self.instance,
            sequence=self.sequence,
            ages={name: max(0.0, now - known.as_of) for name, known in self._facts.items()},
            withheld=withheld | self.withheld,
            leases={key: lease.is_over for key, lease in self._leases.items()},
        )

    def _has_backend(self, name: str) -> bool:
        return name in self._facts

    def _end_lease(self, lease: _ReportedLease) -> None:
        if not lease.is_over:
            lease.is_over, lease.report_until = True, None


def _facts_size(facts: dict[str, Json]) -> int:
    return len(str(facts))
