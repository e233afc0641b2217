"""What this distribution brings. Its filters and weighers come through the same hook as a stranger's.

Import paths, so that a daemon that runs no scheduler imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ostler import hookimpl

ostler_api = "1.0"


@hookimpl
def ostler_managers() -> Mapping[str, str]:
    """Bring the manager `scheduler`."""
    return {"scheduler": "ostler_scheduler.manager:SchedulerManager"}


@hookimpl
def ostler_extensions() -> Mapping[tuple[str, str], str]:
    """Bring the filters and weighers that are there without any other plugin."""
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
