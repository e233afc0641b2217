"""`Filter`, the contract of filters, which drop candidates that cannot serve a request, and the built-in filters.

To add a filter, derive a class from `Filter`, return it from the hook `ostler_extensions` under
`("scheduler.filter", NAME)`, and name it in the scheduler's option `filters`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ostler import format_size
from ostler_scheduler.api_types import Candidate, Request


class Filter(ABC):
    """Drops candidates that cannot serve a request.

    One object is created without arguments for the lifetime of the scheduler. It is called on several threads, for one
    candidate at a time, and must return quickly: no calls, no files.
    """

    @abstractmethod
    def why_not(self, candidate: Candidate, request: Request) -> str:
        """Return why this candidate cannot serve the request, as a text for operators; an empty text if it can.

        An error drops only this candidate, with the error as the reason.
        """


class EnabledFilter(Filter):
    """Drops backends of services that an operator has disabled."""

    def why_not(self, candidate: Candidate, request: Request) -> str:
        """See `Filter.why_not`."""
        return "" if candidate.enabled else f"{candidate.topic} on {candidate.host} is disabled"


class HostFilter(Filter):
    """Drops hosts other than the requested one, and what the request excludes."""

    def why_not(self, candidate: Candidate, request: Request) -> str:
        """See `Filter.why_not`."""
        if request.host and candidate.host != request.host:
            return f"the request needs host {request.host}"
        for excluded in (candidate.host, f"{candidate.host}/{candidate.backend}"):
            if excluded in request.exclude:
                return f"{excluded} is excluded by the request"
        return ""


class CapabilitiesFilter(Filter):
    """Drops backends that lack a required feature.

    A backend offers a feature if it lists it in `features`, or if a fact of that name is true; `fact=value` requires a
    fact of that value.
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
    """Drops backends without enough space; space promised since their last report counts as used."""

    def why_not(self, candidate: Candidate, request: Request) -> str:
        """See `Filter.why_not`."""
        if not request.size:
            return ""
        free = candidate.free
        if free is None:
            return "does not report free_bytes"
        if request.size <= free:
            return ""
        return f"{format_size(request.size)} requested, {format_size(max(0, int(free)))} free{_since(candidate)}"


def _since(candidate: Candidate) -> str:
    parts = [f"{format_size(candidate.promised)} promised since its report"] if candidate.promised else []
    if candidate.neighbours:
        parts.append(f"{format_size(candidate.neighbours)} promised since on other backends of its file system")
    return f" ({', '.join(parts)})" if parts else ""
