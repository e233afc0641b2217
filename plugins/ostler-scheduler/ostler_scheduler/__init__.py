"""A scheduler: keeps capabilities, filters and weighs, and explains its choice.

    wire                what travels: `Request`, `Candidate`, `Judgement`, `Explanation`, `Selection`
    filters, weighers   the contracts `Filter` and `Weigher`, and those that are brought along
    candidates          what services last reported
    choose, parts       the choice itself; filters and weighers made by name
    manager             the service; `commands` is `ostler scheduler …`, `plugin` what the daemon loads

The names below are for authors of filters and weighers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostler_scheduler.filters import Filter
    from ostler_scheduler.weighers import Weigher
    from ostler_scheduler.wire import Candidate, Request

_HOME = {"Candidate": "wire", "Filter": "filters", "Request": "wire", "Weigher": "weighers"}

__all__ = ["Candidate", "Filter", "Request", "Weigher"]


def __getattr__(name: str) -> Any:
    # When first used: the daemon imports this package to look for plugins, also where no scheduler runs.
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'ostler_scheduler' has no attribute {name!r}")
    return getattr(import_module(f"ostler_scheduler.{module}"), name)
