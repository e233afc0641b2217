"""Verifies the identity of other daemons: the host that its key names, and only one daemon for each host."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable

from ostler.bounds import NAME_LIMIT, escape_surrogates, truncate
from ostler.clock import Clock
from ostler.errors import Conflict
from ostler.types import HostIdentity

_log = logging.getLogger(__name__)
_MAX_REPLACED = 16
"""Daemons of one host, one after the other, that are known as replaced."""
_PROBLEM_TTL = 60.0
"""Seconds for which a refusal is shown after the last attempt: a refused daemon retries every few seconds."""

FetchIdentity = Callable[[], Awaitable["HostIdentity | None"]]
"""Asks the daemon at the address of a host who it is now; None when it does not answer."""


def identity_mismatch(own_identity: HostIdentity, other: HostIdentity, expected: str) -> str:
    """Return why a daemon cannot be the host that it is taken for, empty when it can.

    Args:
        own_identity: Who this daemon is.
        other: Who the other one says it is.
        expected: The host as which it is known: by its key, or at whose address it answers.
    """
    name = truncate(escape_surrogates(other.name), NAME_LIMIT)
    if other.name == own_identity.name:
        return (
            f"two hosts are named {own_identity.name}: this one, and the one that [network] lists as "
            f"{expected or 'unknown'}"
        )
    if expected and other.name != expected:
        return f"[network] lists it as {expected}, but its daemon is {name}"
    boots = {own_identity.boot, other.boot}
    if own_identity.machine and other.machine == own_identity.machine and len(boots) == 2 and all(boots):
        # In one boot it is another daemon on this machine, as in a test; in a container that may not be known.
        return f"{name} has the same machine id as {own_identity.name}: one is a copy of the other"
    return ""


IDENTITY_HINT = (
    "give each host its own name (`host` in [daemon]), key (`ostler keys new`) and machine id "
    "(systemd-machine-id-setup)"
)


class PeerIdentities:
    """Verifies daemons that call from other hosts. On the loop.

    A host is the name of its key. Two daemons that hold it at the same time are refused: one is at the host's address
    while another calls, or one calls again that another has replaced. A restarted daemon replaces the one
    before it, which does not call again.

    Args:
        own_identity: Who this daemon is.
        clock: The source of time.
    """

    def __init__(self, own_identity: HostIdentity, clock: Clock) -> None:
        self.own_identity = own_identity
        self.disputed_keys: set[str] = set()
        """Keys that act for no host for now, because two daemons use them."""
        self._clock = clock
        self._current_instances: dict[str, str] = {}
        self._replaced_instances: dict[str, deque[str]] = {}
        self._refusals: dict[str, tuple[float, float, str]] = {}

    async def check_peer(
        self,
        other: HostIdentity,
        key: str,
        host: str,
        linked_identity: HostIdentity | None,
        fetch_identity: FetchIdentity,
    ) -> None:
        """Verify and record a daemon that introduces itself.

        Args:
            other: Who it says it is.
            key: Its public key.
            host: The host that this key names; empty for one that names none.
            linked_identity: The daemon that was found at the address of that host, while the link to it stands.
            fetch_identity: Asks that one again.

        Raises:
            Conflict: It is not that host, or another daemon is.
        """
        why = identity_mismatch(self.own_identity, other, host) or await self._duplicate_reason(
            other, linked_identity, fetch_identity
        )
        if not why:
            self.disputed_keys.discard(key)
            if self._refusals.pop(key, None) is not None:
                _log.info("%s is the name of only one host again", host)
            return
        self.disputed_keys.add(key)
        self._refuse(key, f"refused a daemon that calls as {host or 'a host without a name'}: {why}")
        raise Conflict(
            f"{self.own_identity.name} refuses this host: {why}", hint=IDENTITY_HINT, host=self.own_identity.name
        )

    async def _duplicate_reason(
        self, other: HostIdentity, linked_identity: HostIdentity | None, fetch_identity: FetchIdentity
    ) -> str:
        """Return why two daemons claim one host, empty when they do not."""
        name, instance = other.name, other.instance
        if not instance:  # of an earlier version
            return ""
        if linked_identity is not None and linked_identity.instance != instance:
            # It may have been restarted while the link is not known as lost yet.
            now = await fetch_identity()
            if now is not None and now.instance == linked_identity.instance:
                return f"two hosts are named {name}: {_describe_machines(other, linked_identity)}"
        replaced = self._replaced_instances.setdefault(name, deque(maxlen=_MAX_REPLACED))
        before = self._current_instances.get(name)
        if instance in replaced and before != instance:
            replaced.remove(instance)
            replaced.append(before or "")
            self._current_instances[name] = instance
            return f"two hosts are named {name} and call alternately"
        if before is not None and before != instance:
            replaced.append(before)
        self._current_instances[name] = instance
        return ""

    def _refuse(self, key: str, text: str) -> None:
        now = self._clock.monotonic()
        before = self._refusals.get(key)
        if before is None or before[2] != text:
            _log.error("%s; %s", text, IDENTITY_HINT)
        self._refusals[key] = (now, before[1] if before is not None else self._clock.wall(), text)

    def problems(self) -> list[str]:
        """Return the refused daemons, a line each."""
        limit = self._clock.monotonic() - _PROBLEM_TTL
        for key in [key for key, (at, _, _) in self._refusals.items() if at < limit]:
            # It no longer calls: the key belongs to the other daemon alone again.
            del self._refusals[key]
            self.disputed_keys.discard(key)
        return [text for _, _, text in self._refusals.values()]


def _describe_machines(one: HostIdentity, other: HostIdentity) -> str:
    if one.machine and other.machine and one.machine != other.machine:
        return f"one on machine {one.machine[:8]}, one on machine {other.machine[:8]}"
    return "one at its address, and one that calls from another address"
