"""Who sent a request that came by a gateway."""

from __future__ import annotations

import msgspec

from ostler.types import Peer, Role


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request that came another way than by Ostler's sockets.

    Attributes:
        name: For people and the audit log: `token:ci`, `cert:alice`, `uid 1000`, `anonymous`.
        role: The role that it had when it was asked for; None may do nothing. What it may do is decided again for each
            request.
        peer: What the dispatcher, the audit log and quotas see.
    """

    name: str
    role: Role | None
    peer: Peer


VIA_GATEWAY = "gateway"
"""`Peer.via` of all callers that come by the gateway."""
ANONYMOUS = Caller("anonymous", None, Peer(name="anonymous", via=VIA_GATEWAY))
"""Who has not said who it is: it may do nothing."""
