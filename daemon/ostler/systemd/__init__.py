"""The protocols between the daemon and systemd.

`notify` tells systemd the state of the daemon, `watchdog_guard` decides whether a ping is deserved, `fds` takes over
the sockets that systemd has opened. Not here: what a service is. Without systemd everything here does nothing. The
names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.systemd.fds import listen_fds
    from ostler.systemd.notify import FakeNotifier, ServiceNotifier, SystemdNotifier
    from ostler.systemd.watchdog_guard import (
        LivenessSignal,
        StaleSignal,
        WatchdogGuard,
        WatchdogVerdict,
        watchdog_interval,
    )

_HOME = {
    "LivenessSignal": "watchdog_guard",
    "FakeNotifier": "notify",
    "WatchdogVerdict": "watchdog_guard",
    "StaleSignal": "watchdog_guard",
    "ServiceNotifier": "notify",
    "SystemdNotifier": "notify",
    "WatchdogGuard": "watchdog_guard",
    "listen_fds": "fds",
    "watchdog_interval": "watchdog_guard",
}

__all__ = [
    "FakeNotifier",
    "LivenessSignal",
    "ServiceNotifier",
    "StaleSignal",
    "SystemdNotifier",
    "WatchdogGuard",
    "WatchdogVerdict",
    "listen_fds",
    "watchdog_interval",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _HOME)
