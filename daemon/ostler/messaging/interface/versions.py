"""Which version of a topic's calls may be used: the operator's pin, or the lowest version of its members."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from ostler.clock import Clock
from ostler.errors import OstlerError, UnsupportedVersion, join_words
from ostler.types import MemberVersion, Upgrade
from ostler.version_numbers import is_compatible, parse_version

AUTO = "auto"
MEMBER_GRACE = 300.0
"""Seconds for which a member that went down, stopped or was disabled still counts, where nothing else is said."""
_CACHE_TTL = 2.0
"""Seconds after which the records are looked at again though nobody said that they have changed."""
_OTHER_MAJOR = "has another major version"

Members = Mapping[str, Sequence[MemberVersion]]
ReadMembers = Callable[[float], Members]
RunOffLoop = Callable[[Callable[[], Members]], Awaitable[Members]]


def evaluate_upgrade(
    topic: str, members: Iterable[MemberVersion], pin: str = AUTO, major: int | None = None
) -> Upgrade:
    """Return the state of a topic's upgrade.

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
        cap=_format_version(cap),
        newest=_format_version(newest),
        pin="" if pin == AUTO else pin,
        pinned_by=holders,
        members=everybody,
    )


def check_version_cap(upgrade: Upgrade, required_version: str, where: str, host: str = "") -> None:
    """Check that a call may be sent now.

    Args:
        upgrade: How far its topic is.
        required_version: The version that the call needs.
        where: `topic.method`, for messages.
        host: The host it is for, empty for any.

    Raises:
        UnsupportedVersion: It is above the cap; names the members that limit it.
    """
    cap, holders = upgrade.cap, upgrade.pinned_by
    if host and not upgrade.pin:
        one = [member for member in upgrade.members if member.host == host]
        cap, holders = (one[0].version, one) if one else ("", [])
    if not cap or is_compatible(cap, required_version):
        return
    names = [f"{each.host} has {each.version}" if each.host else each.why for each in holders]
    hosts = [each.host for each in holders if each.host and not is_compatible(each.version, required_version)]
    what = f"upgrade {upgrade.topic} on {join_words(hosts)}" if hosts and not upgrade.pin else "raise the pin"
    raise UnsupportedVersion(
        f"{where} needs version {required_version} of {upgrade.topic}, but at most {cap} can be used now"
        f"{f': {join_words(names)}' if names else ''}",
        hint=f"{what if names else 'upgrade its services'}; see `ostler service versions {upgrade.topic}`",
        topic=upgrade.topic, method=where, asked=required_version, offered=cap, host=host, pinned_by=names,
    )  # fmt: skip


class VersionRegistry:
    """What a daemon knows of the versions of all topics, kept for a moment and looked at again when records change.

    Any thread, but the methods that read block; those that start with `a` are for the loop.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pins: Mapping[str, str] = {}
        self._grace = MEMBER_GRACE
        self._read: ReadMembers | None = None
        self._run_off_loop: RunOffLoop | None = None
        self._lock = threading.Lock()
        self._members: Members = {}
        self._fresh_until = 0.0
        self._generation = 0

    def configure(self, pins: Mapping[str, str], grace: float) -> None:
        """Take over what the configuration says, and look at the records again.

        Args:
            pins: Topic (or `topic.namespace`) to version, or `auto`.
            grace: Seconds for which a member that is gone still counts.
        """
        self._pins, self._grace = dict(pins), grace
        self.invalidate()

    def set_source(self, read: ReadMembers, run: RunOffLoop) -> None:
        """Say where the records are.

        Args:
            read: Returns the members of every topic for a grace time; blocks.
            run: Runs that off the loop.
        """
        self._read, self._run_off_loop = read, run
        self.invalidate()

    def invalidate(self) -> None:
        """Look at the records again the next time somebody asks: they have changed."""
        with self._lock:
            self._generation += 1
            self._fresh_until = 0.0

    def pin_of(self, topic: str) -> str:
        """Return what the operator has set for a topic: a version, or `auto`."""
        return self._pins.get(topic, AUTO)

    def get_upgrade(self, topic: str, major: int | None = None) -> Upgrade:
        """Return how far a topic is; any thread but the loop's. See `judge`."""
        return evaluate_upgrade(topic, self._get_members().get(topic, ()), self.pin_of(topic), major)

    async def aget_upgrade(self, topic: str, major: int | None = None) -> Upgrade:
        """Return how far a topic is; on the loop."""
        return evaluate_upgrade(topic, (await self._aget_members()).get(topic, ()), self.pin_of(topic), major)

    async def list_upgrades(self) -> list[Upgrade]:
        """Return how far each topic is that has members or a pin, in order of their names; on the loop."""
        members = await self._aget_members()
        return [
            evaluate_upgrade(topic, members.get(topic, ()), self.pin_of(topic))
            for topic in sorted({*members, *self._pins})
        ]

    def _get_members(self) -> Members:
        if self._read is None or self._clock.monotonic() < self._fresh_until:
            return self._members
        changes = self._generation
        try:
            found = self._read(self._grace)
        except OstlerError:  # a database that cannot be read now: what was known is better than nothing
            return self._members
        return self._store(found, changes)

    async def _aget_members(self) -> Members:
        read, grace = self._read, self._grace
        if read is None or self._run_off_loop is None or self._clock.monotonic() < self._fresh_until:
            return self._members
        changes = self._generation
        try:
            found = await self._run_off_loop(lambda: read(grace))
        except OstlerError:
            return self._members
        return self._store(found, changes)

    def _store(self, found: Members, changes: int) -> Members:
        with self._lock:
            self._members = found
            if self._generation == changes:  # else something has changed while this look was in progress
                self._fresh_until = self._clock.monotonic() + _CACHE_TTL
        return found


def _format_version(version: tuple[int, int] | None) -> str:
    return f"{version[0]}.{version[1]}" if version is not None else ""
