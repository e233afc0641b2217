"""The hooks of this distribution. Its filters and weighers use the same hook as those of third parties.

They return import paths, so that a daemon without a scheduler does not import it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ostler import hookimpl

ostler_api = "1.0"


@hookimpl
def ostler_managers() -> Mapping[str, str]:
    """Return the manager `scheduler`."""
    return {"scheduler": "ostler_scheduler.manager:SchedulerManager"}


@hookimpl
def ostler_extensions() -> Mapping[tuple[str, str], str]:
    """Return the built-in filters and weighers."""
    filters, weighers = "ostler_scheduler.filters", "ostler_scheduler.weighers"
    return {
        ("scheduler.filter", "enabled"): f"{filters}:EnabledFilter",
        ("scheduler.filter", "host"): f"{filters}:HostFilter",
        ("scheduler.filter", "capabilities"): f"{filters}:CapabilitiesFilter",
        ("scheduler.filter", "capacity"): f"{filters}:CapacityFilter",
        ("scheduler.weigher", "free_space"): f"{weighers}:FreeSpaceWeigher",
        ("scheduler.weigher", "allocated"): f"{weighers}:AllocatedWeigher",
        ("scheduler.weigher", "random"): f"{weighers}:RandomWeigher",
    }
