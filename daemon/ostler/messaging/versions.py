"""Which version of a topic's calls may be used: the pin of the operator, or the lowest that its members speak."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from ostler.clock import Clock
from ostler.errors import OstlerError, UnsupportedVersion, joined
from ostler.types import MemberVersion, Upgrade
from ostler.version_numbers import is_compatible, parse_version

AUTO = "auto"
GRACE = 300.0
"""Seconds for which a member that went down, stopped or was disabled still counts, where nothing else is said."""
_FRESH = 2.0
"""Seconds after which the records are looked at again though nobody said that they have changed."""
_OTHER_MAJOR = "speaks another major version"

Members = Mapping[str, Sequence[MemberVersion]]
Read = Callable[[float], Members]
ReadAsync = Callable[[Callable[[], Members]], Awaitable[Members]]


def judge(topic: str, members: Iterable[MemberVersion], pin: str = AUTO, major: int | None = None) -> Upgrade:
    """Return how far a topic is in an upgrade.

    Args:
        topic: The topic.
        members: Its services.
        pin: `auto`, or the version that the operator has set.
        major: The major version that is asked about; by default that of the newest member.
    """
    everybody = list(members)
    counting = {
        member.host: found for member in everybody if member.counts and (found := parse_version(member.version))
    }
    wanted = major if major is not None else max(counting.values(), default=(0, 0))[0]
    same = [found for found in counting.values() if found[0] == wanted]
    newest, lowest = max(same, default=None), min(same, default=None)
    pinned = parse_version(pin)
    cap = pinned or lowest
    holders = []
    if pinned and newest and pinned < newest:
        holders.append(MemberVersion(host="", version=pin, why="pinned by `rpc_pins` in [messaging]"))
    for member in sorted(everybody, key=lambda each: (parse_version(each.version) or (0, 0), each.host)):
        found = counting.get(member.host)
        if found is None or found == newest:
            continue
        why = member.why if found[0] == wanted else f"{member.why}; {_OTHER_MAJOR}".removeprefix("; ")
        holders.append(MemberVersion(host=member.host, version=member.version, why=why))
    return Upgrade(
        topic=topic,
        upgrading=bool(holders),
        cap=_text(cap),
        newest=_text(newest),
        pin="" if pin == AUTO else pin,
        pinned_by=holders,
        members=everybody,
    )


def check_cap(upgrade: Upgrade, needed: str, where: str, host: str = "") -> None:
    """Hold a call to what may be sent now.

    Args:
        upgrade: How far its topic is.
        needed: The version that the call needs.
        where: `topic.method`, for messages.
        host: The host it is for, empty for any.

    Raises:
        UnsupportedVersion: It is above the cap; names who holds the fleet back.
    """
    cap, holders = upgrade.cap, upgrade.pinned_by
    if host and not upgrade.pin:
        one = [member for member in upgrade.members if member.host == host]
        cap, holders = (one[0].version, one) if one else ("", [])
    if not cap or is_compatible(cap, needed):
        return
    names = [f"{each.host} speaks {each.version}" if each.host else each.why for each in holders]
    hosts = [each.host for each in holders if each.host and not is_compatible(each.version, needed)]
    what = f"upgrade {upgrade.topic} on {joined(hosts)}" if hosts and not upgrade.pin else "raise the pin"
    raise UnsupportedVersion(
        f"{where} needs version {needed} of {upgrade.topic}, and no more than {cap} may be used now"
        f"{f': {joined(names)}' if names else ''}",
        hint=f"{what if names else 'upgrade its services'}; see `ostler service versions {upgrade.topic}`",
        topic=upgrade.topic, method=where, asked=needed, offered=cap, host=host, pinned_by=names,
    )  # fmt: skip


class Upgrades:
    """What a daemon knows of the versions of all topics, kept for a moment and looked at again when records change.

    Any thread, but the methods that read block; those that start with `a` are for the loop.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pins: Mapping[str, str] = {}
        self._grace = GRACE
        self._read: Read | None = None
        self._run: ReadAsync | None = None
        self._lock = threading.Lock()
        self._members: Members = {}
        self._until = 0.0
        self._changes = 0

    def configure(self, pins: Mapping[str, str], grace: float) -> None:
        """Take over what the configuration says, and look at the records anew.

        Args:
            pins: Topic (or `topic.namespace`) to version, or `auto`.
            grace: Seconds for which a member that is gone still counts.
        """
        self._pins, self._grace = dict(pins), grace
        self.forget()

    def read_from(self, read: Read, run: ReadAsync) -> None:
        """Say where the records are.

        Args:
            read: Returns the members of every topic for a grace time; blocks.
            run: Runs that off the loop.
        """
        self._read, self._run = read, run
        self.forget()

    def forget(self) -> None:
        """Look at the records anew the next time somebody asks: they have changed."""
        with self._lock:
            self._changes += 1
            self._until = 0.0

    def pin(self, topic: str) -> str:
        """Return what the operator has set for a topic: a version, or `auto`."""
        return self._pins.get(topic, AUTO)

    def of(self, topic: str, major: int | None = None) -> Upgrade:
        """Return how far a topic is; any thread but the loop's. See `judge`."""
        return judge(topic, self._current().get(topic, ()), self.pin(topic), major)

    async def aof(self, topic: str, major: int | None = None) -> Upgrade:
        """Return how far a topic is; on the loop."""
        return judge(topic, (await self._acurrent()).get(topic, ()), self.pin(topic), major)

    async def all(self) -> list[Upgrade]:
        """Return how far each topic is that has members or a pin, in order of their names; on the loop."""
        members = await self._acurrent()
        return [judge(topic, members.get(topic, ()), self.pin(topic)) for topic in sorted({*members, *self._pins})]

    def _current(self) -> Members:
        if self._read is None or self._clock.monotonic() < self._until:
            return self._members
        changes = self._changes
        try:
            found = self._read(self._grace)
        except OstlerError:  # a database that cannot be read now: what was known is better than nothing
            return self._members
        return self._keep(found, changes)

    async def _acurrent(self) -> Members:
        read, grace = self._read, self._grace
        if read is None or self._run is None or self._clock.monotonic() < self._until:
            return self._members
        changes = self._changes
        try:
            found = await self._run(lambda: read(grace))
        except OstlerError:
            return self._members
        return self._keep(found, changes)

    def _keep(self, found: Members, changes: int) -> Members:
        with self._lock:
            self._members = found
            if self._changes == changes:  # else something has changed while this look was under way
                self._until = self._clock.monotonic() + _FRESH
        return found


def _text(version: tuple[int, int] | None) -> str:
    return f"{version[0]}.{version[1]}" if version is not None else ""
