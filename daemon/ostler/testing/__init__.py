"""For tests of plugins: services in this process, without a daemon, a socket or a patch.

    from ostler.testing import host

    def test_a_lamp_is_switched():
        with host(plugins=["ostler_lamp.plugin"], config=CONFIG) as h:
            assert h.call("lamp", "switch", lamp="desk", on=True).on

The names below are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostler.clock import FakeClock
    from ostler.testing.in_process import Host, host
    from ostler.testing.rpc_api import check_rpc_api, check_rpc_client
    from ostler.testing.virtual_time import VirtualTimeLoop

_HOMES = {
    "FakeClock": "ostler.clock",
    "Host": "ostler.testing.in_process",
    "VirtualTimeLoop": "ostler.testing.virtual_time",
    "check_rpc_api": "ostler.testing.rpc_api",
    "check_rpc_client": "ostler.testing.rpc_api",
    "host": "ostler.testing.in_process",
}

__all__ = ["FakeClock", "Host", "VirtualTimeLoop", "check_rpc_api", "check_rpc_client", "host"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ostler.testing' has no attribute {name!r}")
    return getattr(import_module(home), name)
