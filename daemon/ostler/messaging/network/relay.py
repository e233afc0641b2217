"""Relays requests of local callers to other hosts, as requests of managers are.

A request over a socket that names another host, whose topic is on other hosts alone, or that is a fanout to other hosts
as well, becomes a request to `ostler.relay` of this daemon: so it is a request like any other, is audited, and
can be cancelled, and its caller needs the role here that the method requires there. Requests of other daemons, or
with any key, are not relayed: this daemon would lend them its own rights.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.errors import NotPermitted
from ostler.messaging.wire.envelope import CAST, FANOUT, LENIENT, PROGRESS, RETRY, STREAM, Request, encode_value
from ostler.messaging.wire.request import FANOUT_FLAGS, CallRequest
from ostler.types import CONTROL_TOPIC, LOCAL_PEER, ROLE_ORDER

if TYPE_CHECKING:
    from ostler.messaging.clients.local_client import LocalServiceClient
    from ostler.messaging.network.routing import Router
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.rpc.dispatcher import Dispatcher
    from ostler.messaging.wire.request_context import Context

_NO_TIMEOUT = 10 * 366 * 86400.0
"""Seconds for a request without a deadline, which would have the default of this daemon else."""
_READABLE_ID_LENGTH = 64
"""Characters of a caller's request id that are seen on the other host."""


class Relay:
    """Relays requests of local callers to other hosts. On the loop's thread only.

    Args:
        router: Knows the other hosts.
        dispatcher: Knows what is open here.
        client: Makes the part of a fanout that stays here.
    """

    def __init__(self, router: Router, dispatcher: Dispatcher, client: LocalServiceClient) -> None:
        self._router = router
        self._dispatcher = dispatcher
        self._client = client

    def redirect(self, call: Call) -> bool:
        """Make a request one to `ostler.relay`, if it is for other hosts; return whether it was."""
        request = call.request
        if call.peer is LOCAL_PEER or call.peer.key or self._router.is_local(request):
            return False
        call.relay(_make_relay_request(request), is_cast=bool(request.flags & CAST))
        return True

    async def send_request(
        self, ctx: Context, host: str, request: CallRequest, *, lenient: bool, is_retryable: bool
    ) -> Any:
        """Call or cast a method on another host, or on any that has it; see `Router.relay`."""
        if ctx.deadline is None:
            request = request._replace(timeout=_NO_TIMEOUT)
        repeat = self._router.retry_state_of(_remote_request_id(ctx)) if is_retryable else None
        return await self._router.relay(ctx, host, request, lenient=lenient, retry_state=repeat)

    async def fan_out(self, ctx: Context, request: CallRequest, *, lenient: bool) -> int:
        """Bring a fanout to the service here and on all hosts that can be reached; return how many accepted it.

        Raises:
            NotPermitted: The caller lacks the role that the method requires, here or there; nothing was sent.
            OstlerError: As `Router.fan_out`.
        """
        request = request._replace(flags=FANOUT_FLAGS | (LENIENT if lenient else 0))
        if self._router.is_local(request):
            raise NotPermitted(f"{request.topic} has no members on other hosts", hint="call fanout directly")
        self._check_local(ctx, request)
        hosts = await self._router.authorise_fan_out(ctx, request)
        reached = 0
        if self._dispatcher.registry.is_open(request.topic):
            reached += int(await self._client.asend_request(request._replace(host=self._router.host)))
        return reached + await self._router.fan_out(request, hosts)

    def _check_local(self, ctx: Context, request: CallRequest) -> None:
        if ctx.peer.key:
            raise NotPermitted(
                f"{ctx.peer.name} is not allowed to have {request.topic}.{request.method} relayed: only "
                "requests of local "
                "callers are relayed, and only once",
                hint="call the other daemons directly",
            )
        method = self._dispatcher.registry.find_method(request.topic, request.method)
        if method is not None and ROLE_ORDER[ctx.role] < method.role_rank:
            raise NotPermitted(
                f"{method.full_name} needs the role {method.required_role}, {ctx.peer.name} has {ctx.role}",
                hint="an administrator grants it in [access]", needs=method.required_role, role=str(ctx.role),
            )  # fmt: skip


def _make_relay_request(request: Request) -> Request:
    """Return the request to `ostler.relay` that stands for a request to another host."""
    flags = request.flags
    arguments: dict[str, Any] = {
        "on_host": request.host, "topic": request.topic, "method": request.method, "arguments": request.arguments,
        "lenient": bool(flags & LENIENT), "version": request.version,
    }  # fmt: skip
    if not flags & STREAM:
        arguments |= {
            "cast": bool(flags & CAST and not flags & FANOUT), "fanout": bool(flags & FANOUT),
            "repeatable": bool(flags & RETRY),
        }  # fmt: skip
    method = "relay_stream" if flags & STREAM else "relay"
    packed = msgspec.Raw(encode_value(arguments, f"an argument of {request.topic}.{request.method}"))
    kept = flags & (PROGRESS | STREAM | RETRY)
    return msgspec.structs.replace(
        request, topic=CONTROL_TOPIC, method=method, arguments=packed, host="", version="", flags=kept
    )


def _remote_request_id(ctx: Context) -> str:
    """Return the id under which the attempts of a request are known on the other host, to which all come by one key.

    No account can get the answers of another by using its request id.
    """
    whose = hashlib.blake2b(f"{ctx.peer.account}\0{ctx.request_id}".encode(), digest_size=16).hexdigest()
    return f"{ctx.request_id[:_READABLE_ID_LENGTH]}.{whose}"
