"""What the scheduler says and is told: the structs that travel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from ostler import Json


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for.

    Args:
        topic: The topic whose backends are candidates.
        size: Bytes that must fit, 0 when room does not matter.
        features: What the backend must offer: a feature's name, or `fact=value`.
        host: The only host that will do, empty for any.
        exclude: What will not do: `HOST` or `HOST/BACKEND`.
        refused: What was chosen for this very request before and refused it, `HOST` or `HOST/BACKEND`, with why.
    """

    topic: str
    size: int = 0
    features: tuple[str, ...] = ()
    host: str = ""
    exclude: tuple[str, ...] = ()
    refused: dict[str, str] = {}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One backend as the scheduler knows it.

    Args:
        topic: The topic of its service.
        host: The host of its service.
        backend: The driver's name in the configuration.
        facts: What it said of itself in its last report.
        enabled: Whether an operator has left its service enabled.
        age: Seconds since it was asked for these facts.
        promised: Bytes that were given away and are not yet in the facts.
        neighbours: Bytes that were given away since then on other backends of its file system; see `with_neighbours`.
        gone: Why it does not count any more (stale, down), empty while it does.
    """

    topic: str
    host: str
    backend: str
    facts: dict[str, Json] = {}
    enabled: bool = True
    age: float = 0.0
    promised: int = 0
    neighbours: int = 0
    gone: str = ""

    def number(self, fact: str) -> float | None:
        """Return a fact as a number, None when it is not reported.

        Raises:
            TypeError: It is reported, and is no number.
        """
        value = self.facts.get(fact)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"the fact {fact} should be a number and is {value!r}")
        return value

    @property
    def free(self) -> float | None:
        """Bytes that can still be given away, less what was promised since; None when nothing is reported.

        A backend that gives away more than it has (sparse files) says how much it may promise in all, and how much of
        that is provisioned; one that does not has what is free, without its reserve. Backends of a host that report the
        same `filesystem` share what is free: what was given away on one of them is not free on the others.
        """
        given = self.promised + self.neighbours
        limit = self.number("promise_limit_bytes")
        if limit is not None:
            return limit - (self.number("provisioned_bytes") or 0) - given
        free = self.number("free_bytes")
        return None if free is None else free - (self.number("reserved_bytes") or 0) - given

    @property
    def allocated(self) -> float:
        """Bytes that are in use, with what was promised since; 0 when not reported."""
        return (self.number("allocated_bytes") or 0) + self.promised


def with_neighbours(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates, each with what was given away since the reports on other backends of its file system.

    What had been given away before them the backends have subtracted from each other themselves.

    Args:
        candidates: Backends of any hosts and topics; all of a host must be among them.
    """
    listed = list(candidates)
    groups: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for one in listed:
        filesystem = one.facts.get("filesystem")
        if isinstance(filesystem, str) and filesystem:
            groups[one.host, filesystem].append(one)
    found: dict[int, int] = {}
    for group in groups.values():
        if any(one.promised for one in group):
            found |= {id(one): _given_beside(one, group) for one in group}
    return [msgspec.structs.replace(one, neighbours=found[id(one)]) if found.get(id(one)) else one for one in listed]


def _given_beside(one: Candidate, group: Iterable[Candidate]) -> int:
    # A backend that promises each byte once takes the promises of others in full; an oversubscribed one takes those of
    # others for as oversubscribed as its own.
    own = _factor(one)
    return int(sum(other.promised * own / min(own, _factor(other)) for other in group if other is not one))


def _factor(one: Candidate) -> float:
    value = one.facts.get("oversubscription")
    return float(value) if isinstance(value, int | float) and value >= 1 else 1.0


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one candidate: dropped by a filter with its reason, or weighed.

    `weights` holds each weigher's share of `total`: 0 to 1, times its multiplier. `free` is -1 when not reported.
    `refused` says what it refused lately, after it had been chosen: when, how much, and why.
    """

    host: str
    backend: str
    free: float = -1
    dropped_by: str = ""
    reason: str = ""
    weights: dict[str, float] = {}
    total: float = 0.0
    chosen: bool = False
    refused: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """How a choice comes about: every candidate, and in one line why this one (or none) is chosen."""

    topic: str
    size: int
    why: str
    candidates: list[Judgement]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The backend that was chosen, and why.

    `lease` is the id of the promise of room: whoever does the work hands it to `Manager.capabilities_changed`. Empty
    when there is nothing to promise.
    """

    host: str
    backend: str
    why: str
    lease: str = ""
