"""What callers ask of tokens: the methods `token.…` on the topic `ostler`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ostler.bounds import truncate
from ostler.errors import InvalidInput, NotPermitted
from ostler.manager_types import NewToken, TokenStatus
from ostler.messaging import Context, exposed
from ostler.types import ROLE_ORDER, Role

if TYPE_CHECKING:
    from ostler.daemon.connectivity.gateway_host import GatewayHost
    from ostler.daemon.connectivity.messaging_stack import MessagingStack
    from ostler.messaging.access.tokens import Token
    from ostler.store import Store

_MAX_LIFETIME = 10 * 366 * 86400.0
_is_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}").fullmatch


class TokenControl:
    """Makes, lists and revokes tokens. On the loop.

    Args:
        messaging: Has the tokens in force.
        store: The database, which keeps them.
    """

    rpc_version = "1.0"

    def __init__(self, messaging: MessagingStack, store: Store) -> None:
        self._messaging = messaging
        self._store = store

    @exposed(role="admin")
    async def create(self, ctx: Context, name: str, role: Role, lifetime: float = 0.0) -> NewToken:
        """Make a token, and return it with its secret.

        Args:
            ctx: The request.
            name: Its name: 1 to 63 letters, digits and `_ . -`.
            role: The role that it gives; no higher one than the caller has.
            lifetime: Seconds until it expires; 0 for never.

        Raises:
            InvalidInput: The name or the lifetime is not valid.
            NotPermitted: The caller has a lower role.
            Conflict: There is a token of that name.
        """
        _check_name(name)
        if not 0.0 <= lifetime <= _MAX_LIFETIME:
            raise InvalidInput(
                f"a token cannot live for {lifetime:g} seconds",
                hint="ten years are the most; 0 (`never`) is without an end",
            )
        if ROLE_ORDER[role] > ROLE_ORDER[ctx.role]:
            raise NotPermitted(
                f"a token with the role {role} needs a maker with that role, {ctx.peer.name} has {ctx.role}",
                hint="make one with a role of your own", needs=str(role), role=str(ctx.role),
            )  # fmt: skip
        token, secret = await self._host.create(name, role, lifetime, ctx.peer.name)
        return NewToken(secret=secret, **self._fields(token))

    @exposed(role="admin", changes=False)
    async def list(self, ctx: Context) -> list[TokenStatus]:
        """Return all tokens of this host, by name."""
        return [TokenStatus(**self._fields(token)) for token in await self._host.all_tokens()]

    @exposed(role="admin")
    async def revoke(self, ctx: Context, name: str) -> TokenStatus:
        """Revoke a token: it is refused from now on, and what it has in progress ends.

        Args:
            ctx: The request.
            name: Its name.

        Raises:
            NotFound: There is no token of that name.
        """
        _check_name(name)
        return TokenStatus(**self._fields(await self._host.revoke(name)))

    @property
    def _host(self) -> GatewayHost:
        return self._messaging.gateway_host(self._store)

    def _fields(self, token: Token) -> dict[str, Any]:
        now = self._messaging.dispatcher.clock.wall()
        kept = ("name", "created_at", "made_by", "expires_at", "last_used_at")
        shown = {name: getattr(token, name) for name in kept}
        return {**shown, "role": str(token.role), "is_expired": token.is_expired(now)}


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise InvalidInput(
            f"{truncate(name, 80)!r} cannot be the name of a token",
            hint="use 1 to 63 letters, digits and `_ . -`; the first is no dot or dash",
        )
