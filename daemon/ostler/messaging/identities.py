"""Who another daemon is: the host that its key names, and one daemon alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable

from ostler.bounds import NAME_LIMIT, cut, sendable
from ostler.clock import Clock
from ostler.errors import Conflict
from ostler.types import HostIdentity

_log = logging.getLogger(__name__)
_REMEMBERED = 16
"""Daemons of one host, one after the other, that are known as replaced."""
_SHOWN = 60.0
"""Seconds for which a refusal is shown after it was made last: who is refused comes again every few seconds."""

AskAgain = Callable[[], Awaitable["HostIdentity | None"]]
"""Asks the daemon at the address of a host who it is now; None when it does not answer."""


def mismatch(mine: HostIdentity, other: HostIdentity, expected: str) -> str:
    """Return why a daemon cannot be the host that it is taken for, empty when it can.

    Args:
        mine: Who this daemon is.
        other: Who the other one says it is.
        expected: The host as which it is known: by its key, or at whose address it answers.
    """
    name = cut(sendable(other.name), NAME_LIMIT)
    if other.name == mine.name:
        return f"two hosts are named {mine.name}: this one, and the one that is {expected or 'unknown'} in [network]"
    if expected and other.name != expected:
        return f"it is {expected} in [network], and the daemon there is {name}"
    boots = {mine.boot, other.boot}
    if mine.machine and other.machine == mine.machine and len(boots) == 2 and all(boots):
        # In one boot it is another daemon on this machine, as in a test; in a container that may not be known.
        return f"{name} has the machine id of {mine.name}: one of them is a copy of the other"
    return ""


HINT = (
    "give each host a name (`host` in [daemon]), a key (`ostler keys new`) and a machine id (systemd-machine-id-setup) "
    "of its own"
)


class HostIdentities:
    """Judges who calls from other hosts. On the loop.

    A host is the name of its key. Two daemons that hold it at the same time are refused: one is at the host's address
    while another calls, or one speaks again that another has replaced. One that was started anew replaces the one
    before it, which is never heard of again.

    Args:
        mine: Who this daemon is.
        clock: The source of time.
    """

    def __init__(self, mine: HostIdentity, clock: Clock) -> None:
        self.mine = mine
        self.disputed: set[str] = set()
        """Keys that speak for no host for now: it is not known which of two daemons they are."""
        self._clock = clock
        self._current: dict[str, str] = {}
        self._replaced: dict[str, deque[str]] = {}
        self._refused: dict[str, tuple[float, float, str]] = {}

    async def greet(self, other: HostIdentity, key: str, host: str, linked: HostIdentity | None, ask: AskAgain) -> None:
        """Take note of a daemon that says who it is.

        Args:
            other: Who it says it is.
            key: Its public key.
            host: The host that this key names; empty for one that names none.
            linked: The daemon that was found at the address of that host, while the link to it stands.
            ask: Asks that one again.

        Raises:
            Conflict: It is not that host, or another daemon is.
        """
        why = mismatch(self.mine, other, host) or await self._doubled(other, linked, ask)
        if not why:
            self.disputed.discard(key)
            if self._refused.pop(key, None) is not None:
                _log.info("%s is one host alone again", host)
            return
        self.disputed.add(key)
        self._refuse(key, f"a daemon that calls as {host or 'a host without a name'} is refused: {why}")
        raise Conflict(f"{self.mine.name} refuses this host: {why}", hint=HINT, host=self.mine.name)

    async def _doubled(self, other: HostIdentity, linked: HostIdentity | None, ask: AskAgain) -> str:
        """Return why two daemons are one host, empty when they are not."""
        name, instance = other.name, other.instance
        if not instance:  # of an earlier version
            return ""
        if linked is not None and linked.instance != instance:
            # It may have been started anew, and the link not be known as lost yet.
            now = await ask()
            if now is not None and now.instance == linked.instance:
                return f"two hosts are named {name}: {_where(other, linked)}"
        replaced = self._replaced.setdefault(name, deque(maxlen=_REMEMBERED))
        before = self._current.get(name)
        if instance in replaced and before != instance:
            replaced.remove(instance)
            replaced.append(before or "")
            self._current[name] = instance
            return f"two hosts are named {name}, and call in turns"
        if before is not None and before != instance:
            replaced.append(before)
        self._current[name] = instance
        return ""

    def _refuse(self, key: str, text: str) -> None:
        now = self._clock.monotonic()
        before = self._refused.get(key)
        if before is None or before[2] != text:
            _log.error("%s; %s", text, HINT)
        self._refused[key] = (now, before[1] if before is not None else self._clock.wall(), text)

    def problems(self) -> list[str]:
        """Return whom this daemon refuses for who they are, a line each."""
        limit = self._clock.monotonic() - _SHOWN
        for key in [key for key, (at, _, _) in self._refused.items() if at < limit]:
            # It comes no more: the key is that of the other one alone again.
            del self._refused[key]
            self.disputed.discard(key)
        return [text for _, _, text in self._refused.values()]


def _where(one: HostIdentity, other: HostIdentity) -> str:
    if one.machine and other.machine and one.machine != other.machine:
        return f"one on machine {one.machine[:8]}, one on machine {other.machine[:8]}"
    return "one at its address, and one that calls from elsewhere"
