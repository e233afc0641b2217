"""The gateway of a daemon, and its tokens: made, stored, used, revoked, expired."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from ostler.aio import TaskOwner
from ostler.errors import Busy, Conflict, NotFound, StoreError, error_line
from ostler.messaging.access.tokens import Token, TokenTable, digest_of, new_secret
from ostler.store.records.token_records import TokenRecord, TokenRecords
from ostler.types import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from ostler.clock import Clock
    from ostler.messaging.gateway.gateway import Gateway
    from ostler.store import Store

_log = logging.getLogger(__name__)
MAX_TOKENS = 1000
_EXPIRED_AGE = 30 * 86400.0
"""Seconds for which a token is listed after it has expired; it is removed when another is made."""
_MAX_EXPIRY_WAIT = 60.0
"""Seconds after which it is looked again whether a token has expired: the wall clock may have been set."""


class GatewayHost:
    """Holds the tokens of a daemon, and opens its gateway when it is first asked for. On the loop, unless it says so.

    Args:
        store: The database, which keeps the tokens.
        clock: The source of time.
        host: This host's name.
        loop: The daemon's loop.
        open_gateway: Opens the gateway with these tokens. Any thread.
        on_ended: Called when tokens have been revoked or have expired: what they have in progress is to end.
        max_tokens: The most tokens.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        host: str,
        loop: asyncio.AbstractEventLoop,
        open_gateway: Callable[[TokenTable], Gateway],
        on_ended: Callable[[], None],
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.tokens = TokenTable(clock, self._load, self._on_used)
        self._store = store
        self._clock = clock
        self._records = TokenRecords(host)
        self._loop = loop
        self._open_gateway = open_gateway
        self._on_ended = on_ended
        self._max_tokens = max_tokens
        self._gateway: Gateway | None = None
        self._lock = threading.Lock()
        self._tasks = TaskOwner("tokens")
        self._used: dict[str, float] = {}
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._next_expiry: float | None = None

    def gateway(self) -> Gateway:
        """Return the gateway. Any thread."""
        with self._lock:
            if self._gateway is None:
                self._gateway = self._open_gateway(self.tokens)
                self._loop.call_soon_threadsafe(self._read_early)
            return self._gateway

    async def all_tokens(self) -> list[Token]:
        """Return all tokens, by name.

        Raises:
            StoreError: They cannot be read.
        """
        await self._ensure_loaded()
        return self.tokens.tokens()

    async def create(self, name: str, role: Role, lifetime: float, made_by: str) -> tuple[Token, str]:
        """Make a token; return it with its secret, which is known from nowhere else afterwards.

        Args:
            name: Its name.
            role: The role that it gives.
            lifetime: Seconds until it expires; 0 for never.
            made_by: Who makes it.

        Raises:
            Conflict: There is one of that name.
            Busy: There are as many as there may be.
            StoreError: It cannot be stored; there is none then.
        """
        secret, now = new_secret(), self._clock.wall()
        token = Token(
            name=name, role=role, digest=digest_of(secret), created_at=now, made_by=made_by,
            expires_at=now + lifetime if lifetime else 0.0,
        )  # fmt: skip

        def write() -> list[str]:
            known = self._records.list()
            outdated = [each.name for each in known if 0 < each.expires_at < now - _EXPIRED_AGE]
            self._records.remove(outdated)
            left = [each.name for each in known if each.name not in outdated]
            if name in left:
                raise Conflict(f"there is a token {name} already", hint=f"revoke it: ostler token revoke {name}")
            if len(left) >= self._max_tokens:
                raise Busy(f"there are {self._max_tokens} tokens, which is the limit", hint="revoke those not in use")
            self._records.add(_record_of(token))
            return outdated

        async def make() -> None:
            for gone in await self._store.awrite(write, label="token new"):
                self.tokens.remove(gone)
            self.tokens.add(token)
            self._watch_expiry()

        await self._ensure_loaded()
        await self._complete(make, f"make the token {name}")
        return token, secret

    async def revoke(self, name: str) -> Token:
        """Remove a token: who has it is refused from now on, and what it has in progress ends.

        Raises:
            NotFound: There is none of that name.
            StoreError: It cannot be removed; it stays valid.
        """
        await self._ensure_loaded()
        token = next((token for token in self.tokens.tokens() if token.name == name), None)
        if token is None:
            raise NotFound(f"token {name} not found", hint="`ostler token list` shows the tokens of this host")

        async def remove() -> None:
            await self._store.awrite(partial(self._records.remove, [name]), label="token revoke")
            self.tokens.remove(name)
            with self._lock:
                self._used.pop(name, None)  # the next one of that name was not used
            self._on_ended()

        await self._complete(remove, f"revoke the token {name}")
        return token

    async def _complete(self, change: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Wait for a change. It goes on when the wait is cancelled: memory must hold what the database does."""
        outcome: asyncio.Future[None] = self._loop.create_future()

        async def work() -> None:
            try:
                await change()
            except Exception as error:
                if outcome.done():
                    raise  # nobody waits any more: it is logged
                outcome.set_exception(error)
            except BaseException:
                outcome.cancel()
                raise
            else:
                if not outcome.done():
                    outcome.set_result(None)

        self._tasks.spawn(work(), name=name)
        await outcome

    async def close(self) -> None:
        """Write what was used last, and stop watching."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        await self._write_uses()
        await self._tasks.cancel()

    def _load(self) -> list[Token]:
        """Read all tokens. Any thread."""
        tokens = [_token_of(record) for record in self._store.read(self._records.list)]
        self._loop.call_soon_threadsafe(self._watch_expiry)
        return tokens

    def _read_early(self) -> None:
        """Read the tokens before the first caller comes, whose loop would wait for the database."""
        self._tasks.spawn(self._try_to_load(), name="read the tokens")

    async def _try_to_load(self) -> None:
        try:
            await self._ensure_loaded()
        except StoreError as error:  # whoever comes with a token is told
            _log.debug("tokens could not be read: %s", error_line(error))

    async def _ensure_loaded(self) -> None:
        if not self.tokens.is_loaded:
            records = await self._store.aread(self._records.list)
            self.tokens.fill(map(_token_of, records))
            self._watch_expiry()

    # ---------------------------------------------------------------- what time does

    def _on_used(self, name: str, at: float) -> None:
        """Record that a token was used. Any thread."""
        with self._lock:
            first, self._used[name] = not self._used, at
        if first:
            self._loop.call_soon_threadsafe(self._schedule_write)

    def _schedule_write(self) -> None:
        self._tasks.spawn(self._write_uses(), name="write when tokens were used")

    async def _write_uses(self) -> None:
        with self._lock:
            used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.awrite(partial(self._records.note_use, list(used.items())), label="tokens used")
        except StoreError as error:  # it is for people who look what may be revoked; the next use is written again
            _log.debug("when tokens were used could not be written: %s", error_line(error))

    def _watch_expiry(self) -> None:
        """End what tokens have in progress that have expired, now and when the next one does."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        now, due = self._clock.wall(), self._next_expiry
        self._next_expiry = self.tokens.next_expiry()
        if self._next_expiry is not None:
            wait = min(max(self._next_expiry - now, 0.0), _MAX_EXPIRY_WAIT)
            self._expiry_timer = self._loop.call_later(wait, self._watch_expiry)
        if due is not None and due <= now:
            self._on_ended()


def _token_of(record: TokenRecord) -> Token:
    return Token(**{**record._asdict(), "role": Role(record.role)})


def _record_of(token: Token) -> TokenRecord:
    return TokenRecord(**{name: getattr(token, name) for name in TokenRecord._fields})._replace(role=str(token.role))
