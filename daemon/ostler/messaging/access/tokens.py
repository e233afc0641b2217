"""Tokens: secrets that stand for a name and a role. Here is what is known of them in memory, not where it is stored.

A secret is 256 random bits. Nobody finds one by trying, so one round of SHA-256 keeps it as safe as a slow password
hash would: those are for secrets that can be guessed, and would cost each request milliseconds.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping

import msgspec

from ostler.clock import Clock
from ostler.errors import NotPermitted
from ostler.redaction import TOKEN_MARK
from ostler.types import Role

_SECRET_BYTES = 32
_PROOF_LENGTH = 16
"""Digits of a digest that tell two tokens apart; a secret cannot be found by them."""
_MAX_SECRET_LENGTH = 128
"""Characters of a text that may be a secret: longer ones are not even hashed."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a token; times are wall time in seconds since 1970.

    Attributes:
        name: Its name, unique on its host.
        role: The role that it gives.
        digest: The SHA-256 of its secret, as hexadecimal digits.
        created_at: When it was made.
        made_by: Who made it.
        expires_at: When it ends; 0 for never.
        last_used_at: When it was last used, to the minute; 0 for never.
    """

    name: str
    role: Role
    digest: str
    created_at: float
    made_by: str
    expires_at: float = 0.0
    last_used_at: float = 0.0

    @property
    def proof(self) -> str:
        """What tells it from another of its name: the beginning of the digest."""
        return self.digest[:_PROOF_LENGTH]

    def is_expired(self, now: float) -> bool:
        """Return whether it has expired at this wall time."""
        return 0 < self.expires_at <= now


def new_secret() -> str:
    """Return a secret for a new token. Any thread."""
    return TOKEN_MARK + base64.urlsafe_b64encode(os.urandom(_SECRET_BYTES)).rstrip(b"=").decode()


def digest_of(secret: str) -> str:
    """Return what is stored of a secret. Any thread."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class TokenTable:
    """The tokens of a daemon in memory. Any thread.

    Whether one has expired is decided by the wall clock with each use: a clock that is put forward ends tokens before
    their time, and one that is put back lets those in again that had ended meanwhile.

    Args:
        clock: The source of time.
        load: Reads all tokens; called when they are first needed, by several threads if they come together. May block.
            None for a table that is empty at first.
        on_used: Told which token was used and when, of each token at most once a minute; must not block.
    """

    _USE_INTERVAL = 60.0

    def __init__(
        self,
        clock: Clock,
        load: Callable[[], Iterable[Token]] | None = None,
        on_used: Callable[[str, float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._load = load
        self._on_used = on_used
        self._by_digest: Mapping[str, Token] | None = {} if load is None else None
        self._by_name: Mapping[str, Token] = {}
        self._used_at: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def is_loaded(self) -> bool:
        """Whether the tokens have been read."""
        return self._by_digest is not None

    def authenticate(self, secret: str) -> Token:
        """Return the token with this secret. Blocks for the first one, which reads the table.

        Raises:
            NotPermitted: It is unknown, revoked or expired.
            StoreError: The table cannot be read.
        """
        known = self._loaded()
        # A dictionary of digests tells an attacker by its time nothing that helps to find a secret.
        token = known.get(digest_of(secret)) if len(secret) <= _MAX_SECRET_LENGTH else None
        now = self._clock.wall()
        if token is None:
            raise NotPermitted(
                "the token is not known here, or was revoked",
                hint="`ostler token list` shows the tokens of this host, `ostler token new` makes one",
            )
        if token.is_expired(now):
            raise NotPermitted(
                f"the token {token.name} has expired", hint="an administrator makes another with `ostler token new`"
            )
        self._note_use(token.name, now)
        return token

    def role_of(self, name: str, proof: str) -> Role | None:
        """Return the role of a token that was authenticated before.

        Args:
            name: Its name.
            proof: Its proof: there may be another one of that name.

        Returns:
            None when it was revoked or has expired since.
        """
        token = self._by_name.get(name)
        if token is None or token.proof != proof or token.is_expired(self._clock.wall()):
            return None
        return token.role

    def tokens(self) -> list[Token]:
        """Return all tokens, by name. Blocks for the first time."""
        return sorted(self._loaded().values(), key=lambda token: token.name)

    def fill(self, tokens: Iterable[Token]) -> None:
        """Take over what was read elsewhere, if nothing has been read yet."""
        with self._lock:
            if self._by_digest is None:
                self._set({token.digest: token for token in tokens})

    def add(self, token: Token) -> None:
        """Take in a token that has been stored, once the table is filled."""
        self._replace(lambda known: {**known, token.digest: token})

    def remove(self, name: str) -> None:
        """Forget a token that has been revoked, once the table is filled."""
        self._used_at.pop(name, None)
        self._replace(lambda known: {digest: token for digest, token in known.items() if token.name != name})

    def next_expiry(self) -> float | None:
        """Return the wall time at which the next token expires, None when none does."""
        now = self._clock.wall()
        return min((token.expires_at for token in self._by_name.values() if token.expires_at > now), default=None)

    def _loaded(self) -> Mapping[str, Token]:
        known = self._by_digest
        if known is None:
            # Without the lock, which the daemon's loop may want. What is read cannot be out of date: tokens are made
            # and revoked only once there is a table, and then this one is not taken over.
            assert self._load is not None  # noqa: S101 - else there is a table from the beginning
            self.fill(self._load())
            known = self._by_digest
            assert known is not None  # noqa: S101 - `fill` has set it
        return known

    def _replace(self, change: Callable[[Mapping[str, Token]], Mapping[str, Token]]) -> None:
        """Put another table in the place of this one: who looks at the same time sees either of them whole."""
        with self._lock:
            if self._by_digest is None:
                raise RuntimeError("the tokens have not been read yet")
            self._set(change(self._by_digest))

    def _set(self, known: Mapping[str, Token]) -> None:
        self._by_name = {token.name: token for token in known.values()}
        self._by_digest = known

    def _note_use(self, name: str, now: float) -> None:
        if self._on_used is not None and abs(now - self._used_at.get(name, 0.0)) >= self._USE_INTERVAL:
            self._used_at[name] = now
            self._on_used(name, now)
