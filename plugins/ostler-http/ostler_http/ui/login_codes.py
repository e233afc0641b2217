"""`LoginCodes`: the one-time codes of login links."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict

import msgspec

from ostler import Clock, Peer
from ostler_http.ui.fair_shares import drop_excess

CODE_LIFETIME = 300.0
"""Seconds for which a code can be used."""
_MAX_CODES = 100
_BYTES = 24


class _Issued(msgspec.Struct, frozen=True):
    peer: Peer
    expires_at: float


class LoginCodes:
    """Codes that let whoever has one in once, as the local user who asked for it. On one loop.

    Only digests are kept, and only in memory: a code is gone with the daemon.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._issued: OrderedDict[bytes, _Issued] = OrderedDict()

    def issue(self, peer: Peer) -> str:
        """Return a new code; when there are too many, the oldest of the user with most of them is dropped.

        Args:
            peer: The local user as whom its bearer will act.
        """
        code = secrets.token_urlsafe(_BYTES)
        self._issued[_digest(code)] = _Issued(peer, self._clock.monotonic() + CODE_LIFETIME)
        drop_excess(self._issued, _MAX_CODES, lambda issued: issued.peer.uid)
        return code

    def redeem(self, code: str) -> Peer | None:
        """Use a code up; return whose it was, None for one that is not known, was used, or has expired."""
        issued = self._issued.pop(_digest(code), None)
        return issued.peer if issued is not None and self._clock.monotonic() < issued.expires_at else None


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogateescape")).digest()
