"""Requests of callers here that are for other hosts: they go where a request of a manager would go.

A request over a socket that names another host, whose topic is on other hosts alone, or that is a fanout to other hosts
as well, becomes a request to `ostler.relay` of this daemon: so it is a request under way as any other, is audited, and
can be cancelled, and its caller needs the role here that the method asks for there. What comes from another daemon, or
by any key, stays here: the one in the middle would lend it its own rights.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.errors import NotPermitted
from ostler.messaging.envelope import CAST, FANOUT, LENIENT, PROGRESS, RETRY, STREAM, Request, encode_value
from ostler.messaging.rpc.core import FLAGS_OF_FANOUT, Ask
from ostler.types import CONTROL_TOPIC, LOCAL_PEER, ROLE_ORDER

if TYPE_CHECKING:
    from ostler.messaging.context import Context
    from ostler.messaging.local import LocalServiceClient
    from ostler.messaging.routing import Router
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.rpc.dispatcher import Dispatcher

_NO_LIMIT = 10 * 366 * 86400.0
"""Seconds for a request without a deadline, which would have the default of this daemon else."""
_READABLE = 64
"""Characters of a caller's request id that are seen on the other host."""


class Relay:
    """Brings requests of callers here to other hosts. On the loop's thread only.

    Args:
        router: Knows the other hosts.
        dispatcher: Knows what is open here.
        client: Makes the part of a fanout that stays here.
    """

    def __init__(self, router: Router, dispatcher: Dispatcher, client: LocalServiceClient) -> None:
        self._router = router
        self._dispatcher = dispatcher
        self._client = client

    def take(self, call: Call) -> bool:
        """Make a request one to `ostler.relay`, if it is for other hosts; return whether it was."""
        request = call.request
        if call.peer is LOCAL_PEER or call.peer.key or self._router.here(request):
            return False
        call.relay(_request_for(request), is_cast=bool(request.flags & CAST))
        return True

    async def ask(self, ctx: Context, host: str, ask: Ask, *, lenient: bool, repeatable: bool) -> Any:
        """Call or cast a method on another host, or on any that has it; see `Router.relay`."""
        if ctx.deadline is None:
            ask = ask._replace(timeout=_NO_LIMIT)
        repeat = self._router.repeat_of(_id_there(ctx)) if repeatable else None
        return await self._router.relay(ctx, host, ask, lenient=lenient, repeat=repeat)

    async def fan_out(self, ctx: Context, ask: Ask, *, lenient: bool) -> int:
        """Bring a fanout to the service here and on all hosts that can be reached; return how many accepted it.

        Raises:
            NotPermitted: The caller lacks the role that the method asks for, here or there; nothing was sent.
            OstlerError: As `Router.fan_out`.
        """
        ask = ask._replace(flags=FLAGS_OF_FANOUT | (LENIENT if lenient else 0))
        if self._router.here(ask):
            raise NotPermitted(f"{ask.topic} has no members on other hosts", hint="make the fanout itself")
        self._check_here(ctx, ask)
        hosts = await self._router.check_fan_out(ctx, ask)
        reached = 0
        if self._dispatcher.registry.is_open(ask.topic):
            reached += int(await self._client.aask(ask._replace(host=self._router.host)))
        return reached + await self._router.fan_out(ask, hosts)

    def _check_here(self, ctx: Context, ask: Ask) -> None:
        if ctx.peer.key:
            raise NotPermitted(
                f"{ctx.peer.name} may not have {ask.topic}.{ask.method} relayed: only a caller here may, once",
                hint="ask the other daemons directly",
            )
        method = self._dispatcher.registry.method_at(ask.topic, ask.method)
        if method is not None and ROLE_ORDER[ctx.role] < method.rank:
            raise NotPermitted(
                f"{method.where} needs the role {method.needs}, {ctx.peer.name} has {ctx.role}",
                hint="an administrator gives it in [access]", needs=method.needs, has=str(ctx.role),
            )  # fmt: skip


def _request_for(request: Request) -> Request:
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


def _id_there(ctx: Context) -> str:
    """Return the id under which the attempts of a request are known on the other host, to which all come by one key.

    Nobody can come to the answers of another account by using its request id.
    """
    whose = hashlib.blake2b(f"{ctx.peer.account}\0{ctx.request_id}".encode(), digest_size=16).hexdigest()
    return f"{ctx.request_id[:_READABLE]}.{whose}"
