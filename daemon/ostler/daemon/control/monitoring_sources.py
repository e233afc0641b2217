"""What metrics and health are read from, apart from the parts of the daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ostler.daemon.control.daemon_status import StatusReporter
    from ostler.daemon.control.health_report import HealthReport
    from ostler.daemon.process.loop_monitor import LoopMonitor


class MonitoringSources(NamedTuple):
    """Where metrics and health are read, apart from the parts of the daemon. On the loop.

    Attributes:
        status: The summary that `ostler status` shows.
        stale_signals: Returns the parts without a sign of life, a line each.
        loop_monitor: Returns what names the code that blocks the loop; None without one.
        health: Returns the health of the daemon.
    """

    status: StatusReporter
    stale_signals: Callable[[], list[str]]
    loop_monitor: Callable[[], LoopMonitor | None]
    health: Callable[[], HealthReport]
