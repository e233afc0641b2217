"""Messages: call, cast, fanout, publish and subscribe.

Packages in layers, checked by import-linter: `wire`, then `unix` and `access`, `tcp`, `socket_transport`, `interface`
and `events`, `rpc` and `apicheck`, `clients`, `gateway`, `network` and `observers`. Not here: what the daemon builds of
them (`ostler.daemon.connectivity`). The names below are imported when first used: a command that needs the sync
`Client` imports neither asyncio nor the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Not when first used, as the others: the module has the name of its decorator, and would take its place here.
from ostler.lazy_names import lazy_names
from ostler.messaging.interface.exposure import Exposure, exposed, exposure_of

if TYPE_CHECKING:
    from ostler.messaging.access.roles import Access
    from ostler.messaging.clients.api import RpcApi, remote
    from ostler.messaging.clients.async_client import AsyncClient
    from ostler.messaging.clients.call_methods import ServiceClient
    from ostler.messaging.clients.local_client import LocalServiceClient
    from ostler.messaging.clients.retry import Retry
    from ostler.messaging.clients.sync_client import Client
    from ostler.messaging.events import Event, Gap, Publisher
    from ostler.messaging.events.notifications import Notification, NotificationSink, Notifier
    from ostler.messaging.rpc.dispatcher import Dispatcher
    from ostler.messaging.rpc.endpoint import Endpoint
    from ostler.messaging.rpc.rpc_server import RpcServer
    from ostler.messaging.wire.request_context import Context, Progress, current_context, serving

_HOMES = {
    "access.roles": ["Access"],
    "clients.api": ["RpcApi", "remote"],
    "clients.async_client": ["AsyncClient"],
    "clients.sync_client": ["Client"],
    "wire.request_context": ["Context", "Progress", "current_context", "serving"],
    "events": ["Event", "Gap", "Publisher"],
    "clients.local_client": ["LocalServiceClient"],
    "events.notifications": ["Notification", "NotificationSink", "Notifier"],
    "rpc.dispatcher": ["Dispatcher"],
    "rpc.endpoint": ["Endpoint"],
    "clients.retry": ["Retry"],
    "rpc.rpc_server": ["RpcServer"],
    "clients.call_methods": ["ServiceClient"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Access", "AsyncClient", "Client", "Context", "Dispatcher", "Endpoint", "Event", "Exposure", "Gap",
    "LocalServiceClient", "Notification", "NotificationSink", "Notifier", "Progress", "Publisher", "Retry", "RpcApi",
    "RpcServer", "ServiceClient", "current_context", "exposed", "exposure_of", "remote", "serving",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _HOME)
