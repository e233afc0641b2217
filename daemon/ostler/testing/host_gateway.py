"""The gateway of a test's host, with callers of any role."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from ostler.messaging.access.tokens import Token, TokenTable, digest_of, new_secret
from ostler.messaging.gateway.open_gateway import open_gateway
from ostler.messaging.wire.peer_quotas import make_quotas
from ostler.types import Role

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ostler.messaging import Dispatcher, Publisher, RpcServer
    from ostler.messaging.gateway.caller import Caller
    from ostler.messaging.gateway.gateway import Gateway

T = TypeVar("T")


class HostGateway:
    """The gateway of a host, which is opened when it is first used, and its tokens, which are in memory only.

    Args:
        dispatcher: The host's.
        publisher: The host's.
        own_uid: The uid that has the role admin.
        timeout: Seconds for calls that name no deadline.
    """

    def __init__(self, dispatcher: Dispatcher, publisher: Publisher, own_uid: int, timeout: float) -> None:
        self.tokens = TokenTable(dispatcher.clock)
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._own_uid = own_uid
        self._timeout = timeout
        self._quotas = make_quotas()
        self._servers: list[RpcServer] = []
        self._gateway: Gateway | None = None
        self._secrets: dict[Role, str] = {}
        self._lock = threading.Lock()

    def gateway(self) -> Gateway:
        """Return the gateway. Any thread."""
        with self._lock:
            if self._gateway is None:
                self._gateway = open_gateway(
                    self._dispatcher, self._publisher, self._quotas, self.tokens, self._servers.append,
                    own_uid=self._own_uid, timeout=self._timeout,
                )  # fmt: skip
            return self._gateway

    def caller(self, role: Role) -> Caller:
        """Return a caller with a token of this role. Any thread."""
        return self.gateway().caller_of_token(self.secret(role))

    def secret(self, role: Role) -> str:
        """Return the secret of a token of this role, the same each time. Any thread."""
        with self._lock:
            secret = self._secrets.get(role)
            if secret is None:
                secret = self._secrets[role] = new_secret()
                self.tokens.add(
                    Token(
                        name=f"test-{role}",
                        role=role,
                        digest=digest_of(secret),
                        created_at=self._dispatcher.clock.wall(),
                        made_by="the test",
                    )
                )
            return secret

    async def revoke(self, role: Role) -> None:
        """Revoke the token of a role. On the loop."""
        with self._lock:
            self._secrets.pop(role, None)
        self.tokens.remove(f"test-{role}")
        access = self._dispatcher.access
        self._dispatcher.cancel_unauthorised()
        self._publisher.link.disconnect_unless(lambda peer: access.role_of(peer) is not None)
        for server in self._servers:
            server.link.disconnect_unless(lambda peer: access.role_of(peer) is not None)

    def close(self) -> None:
        """Let nobody in any more. On the loop."""
        for server in self._servers:
            server.close()


class GatewayCallers:
    """What a test's host has for callers of its gateway. On the test's thread."""

    _host_gateway: HostGateway | None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the host's loop and return its result."""
        raise NotImplementedError

    @property
    def gateway(self) -> Gateway:
        """The gateway of the host, as `self.gateway` of its managers."""
        return self._started_gateway().gateway()

    def caller(self, role: Role | str) -> Caller:
        """Return a caller of the gateway that has a role, by a token `test-ROLE`.

        Args:
            role: `viewer`, `operator` or `admin`.
        """
        return self._started_gateway().caller(Role(role))

    def token(self, role: Role | str) -> str:
        """Return the secret of that token, for who is to find out itself who the caller is."""
        return self._started_gateway().secret(Role(role))

    def revoke(self, role: Role | str) -> None:
        """Revoke that token, as `ostler token revoke` does; what its caller has in progress ends."""
        self.run(self._started_gateway().revoke(Role(role)))

    def _started_gateway(self) -> HostGateway:
        assert self._host_gateway is not None, "the host is not started"  # noqa: S101 - an error of the test
        return self._host_gateway
