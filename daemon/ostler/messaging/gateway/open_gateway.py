"""Connects a gateway to the dispatcher and the publisher of its daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ostler.messaging.gateway.gateway import Authenticator, Gateway, GatewayPort
from ostler.messaging.gateway.links import GatewayEventLink, GatewayServerLink
from ostler.messaging.rpc.rpc_server import RpcServer, ServerLimits
from ostler.messaging.wire.envelope import MAX_MESSAGE_SIZE
from ostler.types import Role

if TYPE_CHECKING:
    from ostler.messaging.events import Publisher
    from ostler.messaging.rpc.dispatcher import Dispatcher
    from ostler.messaging.wire.peer_quotas import PeerQuotas
    from ostler.types import Peer


def open_gateway(  # noqa: PLR0913 - the parts of a daemon that it connects
    dispatcher: Dispatcher,
    publisher: Publisher,
    quotas: PeerQuotas,
    tokens: Authenticator,
    on_opened: Callable[[RpcServer], None],
    *,
    own_uid: int,
    timeout: float | None = 60.0,
    max_message_size: int = MAX_MESSAGE_SIZE,
    limits: ServerLimits | None = None,
) -> Gateway:
    """Return a gateway to a daemon; it is connected on the daemon's loop a moment later. Any thread.

    Args:
        dispatcher: Where requests go.
        publisher: Where events come from.
        quotas: What its links share with those of the sockets.
        tokens: Knows the tokens.
        on_opened: Called on the daemon's loop with the server of its calls, which the daemon closes.
        own_uid: The daemon's own uid.
        timeout: Seconds for calls that name no deadline.
        max_message_size: The size limit in bytes of a request, and of a result.
        limits: What the server takes from each caller.
    """
    loop_queue = dispatcher.inbox

    def is_privileged(peer: Peer) -> bool:
        return peer.uid in (0, own_uid) or dispatcher.access.role_of(peer) is Role.ADMIN

    server_link = GatewayServerLink(loop_queue, quotas, is_privileged)
    events_link = GatewayEventLink(loop_queue)

    def connect() -> None:
        server = RpcServer(server_link, dispatcher, loop_queue, max_message_size=max_message_size, limits=limits)
        server.start()
        publisher.add_link(events_link)
        on_opened(server)

    loop_queue.post(connect)  # before anything that a caller posts
    return Gateway(
        GatewayPort(
            loop_queue, server_link, events_link, lambda: dispatcher.access, tokens, dispatcher.record_refusal, timeout
        )
    )
