"""The types of requests and results of the scheduler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from ostler import Json


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a backend.

    Args:
        topic: The topic whose backends are candidates.
        size: Bytes that must fit, 0 for any.
        features: Required features: a name, or `fact=value`.
        host: The only host to consider, empty for all.
        exclude: What to exclude: `HOST` or `HOST/BACKEND`.
        refused: What was chosen for this request before and refused it, `HOST` or `HOST/BACKEND`, with the reason.
    """

    topic: str
    size: int = 0
    features: tuple[str, ...] = ()
    host: str = ""
    exclude: tuple[str, ...] = ()
    refused: dict[str, str] = {}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A backend as known to the scheduler.

    Args:
        topic: The topic of its service.
        host: The host of its service.
        backend: The driver's name in the configuration.
        facts: The capabilities in its last report.
        enabled: Whether its service is enabled.
        age: Seconds since it was queried for these facts.
        promised: Bytes that were promised and are not yet in the facts.
        neighbours: Bytes that were promised since then on other backends of its file system; see `with_neighbours`.
        gone: Why it must not be chosen (stale, down), empty otherwise.
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
        """Return a fact as a number, None if it is not reported.

        Raises:
            TypeError: The fact is not a number.
        """
        value = self.facts.get(fact)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"the fact {fact} is not a number: {value!r}")
        return value

    @property
    def free(self) -> float | None:
        """Bytes that can still be promised, without what was promised since; None if nothing is reported.

        An oversubscribed backend (sparse files) reports the limit of its promises, and how much of it is provisioned;
        any other has its free space without the reserve. Backends of a host that report the same `filesystem` share
        the free space: space promised on one of them is not free on the others.
        """
        given = self.promised + self.neighbours
        limit = self.number("promise_limit_bytes")
        if limit is not None:
            return limit - (self.number("provisioned_bytes") or 0) - given
        free = self.number("free_bytes")
        return None if free is None else free - (self.number("reserved_bytes") or 0) - given

    @property
    def allocated(self) -> float:
        """Bytes in use, including those promised since; 0 if not reported."""
        return (self.number("allocated_bytes") or 0) + self.promised


def with_neighbours(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates, each with the bytes promised since the reports on other backends of its file system.

    The backends themselves have subtracted from each other what was promised before the reports.

    Args:
        candidates: Backends of any hosts and topics; they must include all backends of a host.
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
            found |= {id(one): _promised_by_others(one, group) for one in group}
    return [msgspec.structs.replace(one, neighbours=found[id(one)]) if found.get(id(one)) else one for one in listed]


def _promised_by_others(one: Candidate, group: Iterable[Candidate]) -> int:
    # A backend without oversubscription counts the promises of others in full; an oversubscribed one divides them by
    # its own factor.
    own = _oversubscription(one)
    return int(sum(other.promised * own / min(own, _oversubscription(other)) for other in group if other is not one))


def _oversubscription(one: Candidate) -> float:
    value = one.facts.get("oversubscription")
    return float(value) if isinstance(value, int | float) and value >= 1 else 1.0


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one candidate: dropped by a filter with its reason, or weighed.

    `weights` has each weigher's share of `total`: 0 to 1, times its multiplier. `free` is -1 if not reported. `refused`
    describes its recent refusal after it had been chosen: when, how much, and why.
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
    """The explanation of a choice: every candidate, and the reason in one line."""

    topic: str
    size: int
    why: str
    candidates: list[Judgement]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen backend, and the reason.

    `lease` is the id of the promise of space, to be passed to `Manager.capabilities_changed` by the manager that does
    the work. It is empty if nothing was promised.
    """

    host: str
    backend: str
    why: str
    lease: str = ""
