"""What the collector of metrics is handed; without what it imports."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ostler.daemon.control.daemon_status import StatusReporter
    from ostler.daemon.process.loop_monitor import LoopMonitor


class MetricSources(NamedTuple):
    """Where the collector reads, apart from the parts of the daemon.

    Attributes:
        status: The summary that `ostler status` shows.
        stale_signals: Returns the parts without a sign of life, a line each.
        loop_monitor: Returns what names the code that blocks the loop; None without one.
    """

    status: StatusReporter
    stale_signals: Callable[[], list[str]]
    loop_monitor: Callable[[], LoopMonitor | None]
