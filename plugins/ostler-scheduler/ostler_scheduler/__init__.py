"""A scheduler: stores capabilities, filters and weighs candidates, and explains its choice.

    wire                the types of the API: `Request`, `Candidate`, `Judgement`, `Explanation`, `Selection`
    filters, weighers   the contracts `Filter` and `Weigher`, and the built-in ones
    candidates          the last reports of services
    choose, parts       the choice itself; creates filters and weighers by name
    manager             the service; `commands` is `ostler scheduler …`, `plugin` has the hooks

The names below are for authors of filters and weighers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostler_scheduler.api_types import Candidate, Request
    from ostler_scheduler.filters import Filter
    from ostler_scheduler.weighers import Weigher

_EXPORTS = {"Candidate": "api_types", "Filter": "filters", "Request": "api_types", "Weigher": "weighers"}

__all__ = ["Candidate", "Filter", "Request", "Weigher"]


def __getattr__(name: str) -> Any:
    # On first use: the daemon imports this package to discover plugins, even if no scheduler runs.
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'ostler_scheduler' has no attribute {name!r}")
    return getattr(import_module(f"ostler_scheduler.{module}"), name)
