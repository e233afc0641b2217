"""What one service offers to schedulers, as far as it is known: the content of its next report. No I/O, on the loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ostler.bounds import WHY_LIMIT, cut, sendable
from ostler.redaction import redact
from ostler.types import CapabilityReport, Json

WHOLE = ""
"""The source of a manager that answers for all of its backends at once."""
_MOST_LEASES = 2000
_TOLD = 60.0
"""Seconds for which it is reported that a lease has begun, or is over: longer than schedulers wait for a look."""
_SIZE_LIMIT = 1024 * 1024
"""Characters of all facts of one service, roughly; backends beyond it are withheld."""


class Question(NamedTuple):
    """A question for the capabilities of a source: its number, and when it was asked by the monotonic clock."""

    source: str
    number: int
    asked_at: float


class _Facts(NamedTuple):
    facts: dict[str, Json]
    as_of: float
    source: str


class _Source:
    """When one source is to be asked (loop's time), and up to which change its answers go."""

    __slots__ = ("answered", "asking", "changed", "due", "not_before")

    def __init__(self, changed: int) -> None:
        self.due = 0.0
        self.not_before = 0.0
        self.changed = changed
        self.answered = 0
        self.asking = 0
        """The number of the question that is under way, 0 for none."""


class _Lease:
    """A lease of which the service has heard."""

    __slots__ = ("backend", "number", "over", "until")

    def __init__(self, backend: str, number: int, until: float | None) -> None:
        self.backend = backend
        self.number = number
        self.until = until
        """When it is not reported any more; of one that is over, None before it has been reported."""
        self.over = False


class ServiceCapabilities:
    """What one service offers: facts by backend, each with the moment its question was asked, and what is withheld.

    Changes, questions and leases are numbered from one counter. An answer knows of everything that has a lower number
    than its question; no clock is asked for that.

    Args:
        topic: The topic of the service.
        host: The name of this host.
        instance: Which run of the daemon this is.
    """

    def __init__(self, topic: str, host: str, instance: str) -> None:
        self.topic = topic
        self.host = host
        self.instance = instance
        self.sequence = 0
        self.enabled: bool | None = None
        """Whether an operator has left the service enabled; None before that has been read."""
        self.spoken = False
        """Whether there is anything to report: it has answered, or something is withheld."""
        self.sources: dict[str, _Source] = {}
        self.withheld: dict[str, str] = {}
        self.faults: dict[str, str] = {}
        """Backends, or the source, whose last answer could not be used: why."""
        self._facts: dict[str, _Facts] = {}
        self._leases: dict[str, _Lease] = {}
        self._numbers = itertools.count(1)

    # ---------------------------------------------------------------- what changes

    def changed(self, backend: str) -> list[str]:
        """Take note that a backend (or all: empty) is other than it was; return the sources that have to be asked."""
        number = next(self._numbers)
        names = [name for name in self.sources if not backend or name in (backend, WHOLE)]
        for name in names:
            self.sources[name].changed = number
        return names

    def lease(self, backend: str, lease: str, now: float, *, released: bool) -> None:
        """Take note that the work for a lease has begun and is counted from now on, or that nothing was taken."""
        known = self._leases.pop(lease, None)
        while len(self._leases) >= _MOST_LEASES:
            del self._leases[next(iter(self._leases))]
        number = next(self._numbers)
        if known is not None and known.over:
            self._leases[lease] = known
            return
        self._leases[lease] = _Lease(backend, number, now + _TOLD)
        if released:
            self._end(self._leases[lease])
        self.sequence += 1

    def offer(self, sources: Iterable[str], withheld: Mapping[str, str]) -> bool:
        """Take over who can be asked now and who must not be offered; return whether the report is another one."""
        names = dict.fromkeys(sources)
        for name in [name for name in names if name not in self.sources]:
            self.sources[name] = _Source(changed=next(self._numbers))
        for name in [name for name, source in self.sources.items() if name not in names and not source.asking]:
            del self.sources[name]
        told = {name: sendable(cut(redact(why), WHY_LIMIT)) for name, why in withheld.items()}
        if told == self.withheld:
            return False
        for name in self.withheld.keys() - told.keys():  # what is back is asked anew before it is offered
            for source in self.changed(name):
                self.sources[source].due = 0.0
        self.withheld = told
        for name in told:
            self._facts.pop(name, None)
        self.spoken = True
        self.sequence += 1
        return True

    def withdraw(self, why: str) -> None:
        """Offer nothing any more."""
        self.sources = {name: source for name, source in self.sources.items() if source.asking}
        self.withheld = dict.fromkeys([*self._facts, *self.withheld], why)
        self._facts.clear()
        self.sequence += 1

    @property
    def offers(self) -> bool:
        """Whether it offers anything now."""
        return bool(self._facts)

    # ---------------------------------------------------------------- questions and answers

    def ask(self, name: str, now: float) -> Question:
        """Begin a question."""
        question = Question(name, next(self._numbers), now)
        self.sources[name].asking = question.number
        return question

    def answered(self, question: Question, found: Mapping[str, dict[str, Json]], faults: Mapping[str, str]) -> None:
        """Take an answer, however late: facts by backend, and which backends said something that cannot be used.

        What the same source said before of other backends is gone.
        """
        source = self._ended(question)
        if source is None:
            return
        for name in [name for name, old in self._facts.items() if old.source == question.source]:
            del self._facts[name]
        room = _SIZE_LIMIT - sum(_size(old.facts) for old in self._facts.values())
        kept = {} if question.source == WHOLE else self.faults
        self.faults = {name: why for name, why in kept.items() if name != question.source}
        self.faults |= faults
        for name, facts in found.items():
            room -= _size(facts)
            if room < 0:
                self.faults[name] = f"the capabilities of {self.topic} have more than {_SIZE_LIMIT} characters"
            elif name not in self.withheld:
                self._facts[name] = _Facts(facts, question.asked_at, question.source)
        for lease in self._leases.values():
            if lease.number < question.number and question.source in (WHOLE, lease.backend):
                self._end(lease)
        self.spoken = True
        self.sequence += 1

    def no_news(self, question: Question) -> None:
        """Take note that a question came back with nothing to say: what was said before counts on."""
        self._ended(question)

    def begin_again(self) -> None:
        """Forget the questions that are under way: those whom they were put to are gone."""
        self.sources.clear()

    def failed(self, question: Question, why: str) -> None:
        """Take note that a source cannot say what it offers: that is not offered then."""
        if self._ended(question) is None:
            return
        self.faults[question.source] = why
        for name in [name for name, old in self._facts.items() if old.source == question.source]:
            del self._facts[name]
        self.sequence += 1

    def _ended(self, question: Question) -> _Source | None:
        source = self.sources.get(question.source)
        if source is None or source.asking != question.number:
            return None
        source.asking, source.answered = 0, question.number
        return source

    def pending(self, soon: float) -> bool:
        """Whether something has changed that no answer knows of yet, and that is asked for before `soon`."""
        sources = self.sources.values()
        return any(one.answered < one.changed and (one.asking > 0 or one.due <= soon) for one in sources)

    # ---------------------------------------------------------------- the report

    def report(self, now: float, wall: float) -> CapabilityReport:
        """Return the report as it is at this moment."""
        for key, lease in list(self._leases.items()):
            if lease.until is None:
                lease.until = now + _TOLD
            elif lease.until < now:
                del self._leases[key]
        withheld = {name: "its capabilities have not come yet" for name in self.sources if name and not self._has(name)}
        withheld |= {name: cut(why, WHY_LIMIT) for name, why in self.faults.items() if name}
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
            leases={key: lease.over for key, lease in self._leases.items()},
        )

    def _has(self, name: str) -> bool:
        return name in self._facts

    def _end(self, lease: _Lease) -> None:
        if not lease.over:
            lease.over, lease.until = True, None


def _size(facts: dict[str, Json]) -> int:
    return len(str(facts))
