"""`Filter`: says which candidates cannot serve a request; and the filters that are brought along.

A filter of your own is a class derived from `Filter`, brought by the hook `ostler_extensions` under
`("scheduler.filter", NAME)` and named in the scheduler's option `filters`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ostler import format_size
from ostler_scheduler.wire import Candidate, Request


class Filter(ABC):
    """Says which candidates cannot serve a request.

    One object is made for the life of the scheduler, without arguments. It is asked from several threads, for one
    candidate at a time, and must answer quickly: no calls, no files.
    """

    @abstractmethod
    def why_not(self, candidate: Candidate, request: Request) -> str:
        """Return why this candidate cannot serve the request, in words for an operator; empty text when it can.

        An error drops this candidate alone, with the error as the reason.
        """


class EnabledFilter(Filter):
    """Drops backends of services that an operator has disabled."""

    def why_not(self, candidate: Candidate, request: Request) -> str:
        """See `Filter.why_not`."""
        return "" if candidate.enabled else f"{candidate.topic} on {candidate.host} is disabled"


class HostFilter(Filter):
    """Drops other hosts than the one asked for, and what the request excludes."""

    def why_not(self, candidate: Candidate, request: Request) -> str:
        """See `Filter.why_not`."""
        if request.host and candidate.host != request.host:
            return f"only host {request.host} will do"
        for excluded in (candidate.host, f"{candidate.host}/{candidate.backend}"):
            if excluded in request.exclude:
                return f"{excluded} is excluded by the request"
        return ""


class CapabilitiesFilter(Filter):
    """Drops backends that lack a feature asked for.

    A backend offers a feature when it lists it in `features`, or when a fact of that name is true; `fact=value` asks
    for a fact of that value.
    """

    def why_not(self, candidate: Candidate, request: Request) -> str:
        """See `Filter.why_not`."""
        missing = [feature for feature in request.features if not self._offers(candidate, feature)]
        return f"does not offer {', '.join(missing)}" if missing else ""

    def _offers(self, candidate: Candidate, feature: str) -> bool:
        name, equals, wanted = feature.partition("=")
        value = candidate.facts.get(name)
        if equals:
            return (str(value).lower() if isinstance(value, bool) else str(value)) == wanted
        listed = candidate.facts.get("features")
        return value is True or (isinstance(listed, list) and name in listed)


class CapacityFilter(Filter):
    """Drops backends without enough room; what was promised since their last report counts as gone."""

    def why_not(self, candidate: Candidate, request: Request) -> str:
        """See `Filter.why_not`."""
        if not request.size:
            return ""
        free = candidate.free
        if free is None:
            return "does not report free_bytes"
        if request.size <= free:
            return ""
        return f"{format_size(request.size)} asked for, {format_size(max(0, int(free)))} free{_since(candidate)}"


def _since(candidate: Candidate) -> str:
    parts = [f"{format_size(candidate.promised)} promised since its report"] if candidate.promised else []
    if candidate.neighbours:
        parts.append(f"{format_size(candidate.neighbours)} promised since on other backends of its file system")
    return f" ({', '.join(parts)})" if parts else ""
