"""What a daemon and systemd say to each other.

`notify` tells systemd how the daemon does, `watchdog` decides whether a ping is deserved, `fds` takes over the sockets
that systemd has opened. Nothing here knows what a service is, and without systemd everything here does nothing,
quietly. The names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.systemd.fds import listen_fds
    from ostler.systemd.notify import FakeNotifier, Notifier, SystemdNotifier
    from ostler.systemd.watchdog import Evidence, Finding, Missing, WatchdogGuard, watchdog_interval

_HOME = {
    "Evidence": "watchdog",
    "FakeNotifier": "notify",
    "Finding": "watchdog",
    "Missing": "watchdog",
    "Notifier": "notify",
    "SystemdNotifier": "notify",
    "WatchdogGuard": "watchdog",
    "listen_fds": "fds",
    "watchdog_interval": "watchdog",
}

__all__ = [
    "Evidence", "FakeNotifier", "Finding", "Missing", "Notifier", "SystemdNotifier", "WatchdogGuard", "listen_fds",
    "watchdog_interval",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _HOME)
