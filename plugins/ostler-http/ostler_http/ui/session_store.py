"""`SessionStore`: who has logged in with a browser.

A session is known by the random id in its cookie. What is kept here is a digest of that id, and what proves anew with
each request that the login still counts: the token, readable only with the id, or the local user of a login link.
So a token that is revoked ends its sessions, and memory holds neither tokens nor ids.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from typing import Any, Protocol

import msgspec

from ostler import Clock, NotPermitted, Peer
from ostler_http.ui.fair_shares import drop_excess

_BYTES = 32


class CallerSource(Protocol):
    """Knows callers; see `ostler.Gateway`."""

    def caller_of_token(self, secret: str, *, origin: str = "") -> Any:
        """Return whose token it is."""
        ...

    def caller_of_user(self, uid: int, gid: int, pid: int) -> Any:
        """Return what a local user may do."""
        ...


class Session(msgspec.Struct):
    """One login.

    Args:
        name: Whose it is.
        peer: The local user who made the login link; None for a login with a token.
        sealed_token: The token, readable with the id of the session.
        opened_at: The monotonic time of the login.
        used_at: The monotonic time of its last request.
    """

    name: str
    peer: Peer | None
    sealed_token: bytes
    opened_at: float
    used_at: float


class SessionStore:
    """The sessions of one mount. On one loop.

    Args:
        callers: Knows callers.
        clock: The source of time.
        idle: Seconds without a request after which a session ends.
        lifetime: Seconds after its login after which it ends.
        limit: The most sessions; of whoever has most of them, the one that was not used for longest ends first.
    """

    def __init__(self, callers: CallerSource, clock: Clock, *, idle: float, lifetime: float, limit: int) -> None:
        self._callers = callers
        self._clock = clock
        self._idle = idle
        self._lifetime = lifetime
        self._limit = limit
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open_with_token(self, token: str, *, origin: str = "") -> tuple[str, Any]:
        """Begin a session; return its id and the caller.

        Args:
            token: The secret of the token.
            origin: Where the caller comes from, for the audit log.

        Raises:
            NotPermitted: The token is not known, has expired, was revoked, or has no role.
        """
        caller = _with_role(self._callers.caller_of_token(token, origin=origin))
        session_id = secrets.token_urlsafe(_BYTES)
        sealed = _seal(token.encode("utf-8", "surrogateescape"), session_id)
        return self._add(session_id, Session(caller.name, None, sealed, *self._now())), caller

    def open_for_user(self, peer: Peer) -> tuple[str, Any]:
        """Begin a session of a local user, who has made a login link; return its id and the caller.

        Raises:
            NotPermitted: The user has no role any more.
        """
        caller = _with_role(self._callers.caller_of_user(peer.uid, peer.gid, peer.pid))
        return self._add(secrets.token_urlsafe(_BYTES), Session(caller.name, peer, b"", *self._now())), caller

    def caller(self, session_id: str, *, is_use: bool = True) -> Any | None:
        """Return the caller of a session that has not ended; None for any other.

        Args:
            session_id: What the cookie says.
            is_use: Whether somebody is there; a page that is only kept up to date does not keep a session from ending.
        """
        key, now = _key(session_id), self._clock.monotonic()
        session = self._sessions.get(key)
        if session is None:
            return None
        if now >= min(session.opened_at + self._lifetime, session.used_at + self._idle):
            del self._sessions[key]
            return None
        try:
            caller = _with_role(self._verify(session, session_id))
        except NotPermitted:
            del self._sessions[key]
            return None
        if is_use:
            session.used_at = now
            self._sessions.move_to_end(key)
        return caller

    def close(self, session_id: str) -> None:
        """End a session; one that is not known has ended already."""
        self._sessions.pop(_key(session_id), None)

    def _verify(self, session: Session, session_id: str) -> Any:
        if session.peer is not None:
            return self._callers.caller_of_user(session.peer.uid, session.peer.gid, session.peer.pid)
        return self._callers.caller_of_token(_seal(session.sealed_token, session_id).decode("utf-8", "surrogateescape"))

    def _now(self) -> tuple[float, float]:
        """Return when a session that begins now was opened, and last used."""
        now = self._clock.monotonic()
        return now, now

    def _add(self, session_id: str, session: Session) -> str:
        self._sessions[_key(session_id)] = session
        drop_excess(self._sessions, self._limit, lambda each: each.name)
        return session_id


def _with_role(caller: Any) -> Any:
    if caller.role is None:
        raise NotPermitted(f"{caller.name} has no role", hint="an administrator grants roles in [access]")
    return caller


def _key(session_id: str) -> bytes:
    return hashlib.sha256(b"session " + session_id.encode("utf-8", "surrogateescape")).digest()


def _seal(text: bytes, session_id: str) -> bytes:
    """Return a text unreadable without the id of its session; the same again returns the text."""
    stream = hashlib.shake_256(b"token " + session_id.encode("utf-8", "surrogateescape")).digest(len(text))
    return bytes(one ^ other for one, other in zip(text, stream, strict=True))
