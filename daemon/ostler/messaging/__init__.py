"""Messages: call, cast, fanout, publish and subscribe.

`envelope` is the wire format and does no I/O, `transport` the seam, `zmq` and `memory` its two implementations; `rpc`
and `events` know the seam alone. The names below are imported when first used: a command that needs the sync `Client`
imports neither asyncio nor the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Not when first used, as the others: the module has the name of its decorator, and would take its place here.
from ostler.lazy_names import lazy_names
from ostler.messaging.exposed import Exposure, exposed, exposure_of

if TYPE_CHECKING:
    from ostler.messaging.access import Access
    from ostler.messaging.api import RpcApi, remote
    from ostler.messaging.async_client import AsyncClient
    from ostler.messaging.client import Client
    from ostler.messaging.context import Context, Progress, current_context, serving
    from ostler.messaging.events import Event, Gap, Publisher
    from ostler.messaging.local import LocalServiceClient
    from ostler.messaging.notify import Notification, NotificationSink, Notifier
    from ostler.messaging.rpc.dispatcher import Dispatcher
    from ostler.messaging.rpc.endpoint import Endpoint
    from ostler.messaging.rpc.retry import Retry
    from ostler.messaging.rpc.server import RpcServer
    from ostler.messaging.service_client import ServiceClient

_HOMES = {
    "access": ["Access"],
    "api": ["RpcApi", "remote"],
    "async_client": ["AsyncClient"],
    "client": ["Client"],
    "context": ["Context", "Progress", "current_context", "serving"],
    "events": ["Event", "Gap", "Publisher"],
    "local": ["LocalServiceClient"],
    "notify": ["Notification", "NotificationSink", "Notifier"],
    "rpc.dispatcher": ["Dispatcher"],
    "rpc.endpoint": ["Endpoint"],
    "rpc.retry": ["Retry"],
    "rpc.server": ["RpcServer"],
    "service_client": ["ServiceClient"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Access", "AsyncClient", "Client", "Context", "Dispatcher", "Endpoint", "Event", "Exposure", "Gap",
    "LocalServiceClient", "Notification", "NotificationSink", "Notifier", "Progress", "Publisher", "Retry", "RpcApi",
    "RpcServer", "ServiceClient", "current_context", "exposed", "exposure_of", "remote", "serving",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _HOME)
