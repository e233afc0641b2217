"""A service: one manager on one topic, and all of them together.

`assembly` makes specs from a configuration, `lifecycle` is one service, `group` starts and stops all in order, `report`
writes heartbeats and capabilities, `runtime` puts these together for a host. The names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.service.assembly import Assembly, assemble
    from ostler.service.group import ServiceGroup, StartFailed
    from ostler.service.lifecycle import Service
    from ostler.service.runtime import Runtime
    from ostler.service.spec import Host, ServiceSpec, Surroundings

_HOME = {
    "Assembly": "assembly",
    "Host": "spec",
    "Runtime": "runtime",
    "Service": "lifecycle",
    "ServiceGroup": "group",
    "ServiceSpec": "spec",
    "StartFailed": "group",
    "Surroundings": "spec",
    "assemble": "assembly",
}

__all__ = [
    "Assembly", "Host", "Runtime", "Service", "ServiceGroup", "ServiceSpec", "StartFailed", "Surroundings", "assemble",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _HOME)
