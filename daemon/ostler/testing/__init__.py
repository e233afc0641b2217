"""For tests of plugins: runs services in this process, without a daemon, a socket or a patch.

    from ostler.testing import host

    def test_a_lamp_is_switched():
        with host(plugins=["ostler_lamp.plugin"], config=CONFIG) as h:
            assert h.call("lamp", "switch", lamp="desk", on=True).on

The names below are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.clock import FakeClock
    from ostler.testing.commands import CommandResult
    from ostler.testing.conformance import check_driver, check_manager
    from ostler.testing.driver_faults import DriverHandle
    from ostler.testing.in_process import Host, host
    from ostler.testing.rpc_api import check_rpc_api, check_rpc_client
    from ostler.testing.single_driver import run_driver
    from ostler.testing.virtual_time import VirtualTimeLoop

_EXPORTS = {
    "CommandResult": "testing.commands",
    "DriverHandle": "testing.driver_faults",
    "FakeClock": "clock",
    "Host": "testing.in_process",
    "check_driver": "testing.conformance",
    "check_manager": "testing.conformance",
    "VirtualTimeLoop": "testing.virtual_time",
    "check_rpc_api": "testing.rpc_api",
    "check_rpc_client": "testing.rpc_api",
    "host": "testing.in_process",
    "run_driver": "testing.single_driver",
}

__all__ = [
    "CommandResult", "DriverHandle", "FakeClock", "Host", "VirtualTimeLoop", "check_driver", "check_manager",
    "check_rpc_api", "check_rpc_client", "host", "run_driver",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _EXPORTS, below="ostler")
