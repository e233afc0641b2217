"""What a daemon and systemd say to each other.

`notify` tells systemd how the daemon does, `watchdog` decides whether a ping is deserved, `fds` takes over the sockets
that systemd has opened. Nothing here knows what a service is, and without systemd everything here does nothing,
quietly. The names are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ostler.systemd' has no attribute {name!r}")
    return getattr(import_module(f"ostler.systemd.{home}"), name)
