"""Services: one manager on one topic each, and all of them together.

`resolve` builds specs from a configuration, `lifecycle` is one service, `service_group` starts and stops all in order,
`heartbeat_reporter` writes states, `runtime` puts these together for a host. Not here: sockets, signals, and the
configuration files. The names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.service.lifecycle import Service
    from ostler.service.resolve import ResolvedConfiguration, resolve_configuration
    from ostler.service.runtime import Runtime
    from ostler.service.service_group import ServiceGroup, StartFailed
    from ostler.service.service_spec import HostServices, ServiceContext, ServiceSpec

_MODULE_BY_NAME = {
    "ResolvedConfiguration": "resolve",
    "HostServices": "service_spec",
    "Runtime": "runtime",
    "Service": "lifecycle",
    "ServiceGroup": "service_group",
    "ServiceSpec": "service_spec",
    "StartFailed": "service_group",
    "ServiceContext": "service_spec",
    "resolve_configuration": "resolve",
}

__all__ = [
    "HostServices",
    "ResolvedConfiguration",
    "Runtime",
    "Service",
    "ServiceContext",
    "ServiceGroup",
    "ServiceSpec",
    "StartFailed",
    "resolve_configuration",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _MODULE_BY_NAME)
