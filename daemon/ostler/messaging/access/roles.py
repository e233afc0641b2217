"""Access control: maps the user, with its groups, or the key behind a connection to a role."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from ostler.aio.optional_thread import start_optional_thread
from ostler.messaging.wire.transport import Admission
from ostler.types import LOCAL_PEER, ROLE_ORDER, Peer, Role

_log = logging.getLogger(__name__)
LOOKUP_TIMEOUT = 0.008
"""Seconds that the loop waits for a look-up; the files of this machine take a thousandth of that."""
LATE_LOOKUP_TIMEOUT = 0.0
"""Seconds that it waits while another one takes longer than that: the loop has waited enough."""
_MAX_LOOKUPS = 8
"""Look-ups in progress; users beyond that are looked up when they ask again."""
_MAX_LOOKUPS_PER_USER = 2
"""Look-ups in progress of one user, who may come with any of its groups as its own one."""
_MAX_CACHED_USERS = 4096

UserKey = tuple[int, int]


class _Lookup:
    """One look-up, until it is taken."""

    __slots__ = ("done", "groups", "is_late", "started_at")

    def __init__(self) -> None:
        self.is_late = False
        """Whether somebody was judged without it."""
        self.started_at = time.monotonic()
        self.done = threading.Event()
        self.groups: frozenset[int] = frozenset()


class GroupLookup:
    """Finds the groups of a peer's user, and holds the loop up for a moment at most. On the loop's thread.

    What comes later is there for the next request. Nothing is kept that was taken: whoever asks keeps it.

    Args:
        read_groups: Returns the groups of a peer's user; may take any time. On threads of its own.
        on_found: Told of groups that came too late for somebody, on the thread of the look-up.
    """

    def __init__(
        self,
        read_groups: Callable[[Peer], frozenset[int]] | None = None,
        on_found: Callable[[], None] | None = None,
    ) -> None:
        self._find = read_groups or read_user_groups
        self._on_found = on_found or _noop
        self._lookups: dict[UserKey, _Lookup] = {}

    def get_groups(self, peer: Peer) -> frozenset[int] | None:
        """Return the groups of a peer's user, None when they are not known yet."""
        key = (peer.uid, peer.gid)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._start_lookup(key, peer)
            if lookup is None:
                return None
            overdue = any(each.started_at < lookup.started_at - LOOKUP_TIMEOUT for each in self._lookups.values())
            if not lookup.done.wait(LATE_LOOKUP_TIMEOUT if overdue else LOOKUP_TIMEOUT):
                _log.warning("looking up the groups of %s is slow; only its own group counts meanwhile", peer.name)
        if not lookup.done.is_set():
            lookup.is_late = True
            if not lookup.done.is_set():  # once more: one that ends from here on tells of itself
                return None
        del self._lookups[key]
        return lookup.groups

    def is_pending(self, peer: Peer) -> bool:
        """Return whether the groups of a peer's user are not known yet, and are wanted."""
        return (peer.uid, peer.gid) in self._lookups

    def _start_lookup(self, key: UserKey, peer: Peer) -> _Lookup | None:
        running = [uid for (uid, _), each in self._lookups.items() if not each.done.is_set()]
        if len(running) >= _MAX_LOOKUPS or running.count(peer.uid) >= _MAX_LOOKUPS_PER_USER:
            return None
        if len(self._lookups) >= _MAX_CACHED_USERS:  # found, and never asked for again
            self._lookups = {key: each for key, each in self._lookups.items() if not each.done.is_set()}
        lookup = self._lookups[key] = _Lookup()

        def look() -> None:
            try:
                lookup.groups = self._find(peer)
            finally:
                lookup.done.set()
                if lookup.is_late:
                    self._on_found()

        # A thread that hangs in there must not hold up the end of the process.
        if start_optional_thread(look, f"ostler-groups-{peer.uid}") is None:
            del self._lookups[key]
            return None
        return lookup


def _noop() -> None:
    """Do nothing; the default of a callback."""


def read_user_groups(peer: Peer) -> frozenset[int]:
    """Return the gids of a peer's user, as the user database says; blocks."""
    own = {peer.gid} if peer.gid >= 0 else set()
    try:
        name = pwd.getpwuid(peer.uid).pw_name
        return frozenset(own.union(os.getgrouplist(name, peer.gid)))
    except (KeyError, OSError):  # a uid without a name (containers, DynamicUser) has the group it came with
        return frozenset(own)


_CACHE_LIMIT = 4096


class HostKeys(NamedTuple):
    """Which keys act for no other host.

    Attributes:
        own_host: The name of this host: no peer acts for it.
        disputed: Keys that act for no host, because two hosts use them; looked at each time.
    """

    own_host: str = ""
    disputed: Collection[str] = ()


TOKEN_PREFIX, CERTIFICATE_PREFIX = "token:", "cert:"
"""What the `principal` of a caller with a token, and of one with a client certificate, begins with."""


class Access:
    """Maps peers to roles as configured in `[access]`; a peer that is not listed has no role.

    Root and the daemon's own user are admin. Names are looked up when this is made, the groups of a user when it is
    first seen; a reload makes a new one, so that changes in the user database are seen then. As long as that does
    not answer, a user has only the group of its process. Any thread may ask for a role; a look-up of groups holds up
    those who ask at the same time as well.

    Args:
        viewer: Who may look: user names, uids, `@group`, `*` for every local user, `key:NAME` for a key, `cert:NAME`
            for a client certificate.
        operator: Who may also do the daily work.
        admin: Who may do all.
        own_uid: The daemon's own uid; None for that of this process.
        groups_of: Returns the gids of a peer's user, on any thread; a test brings its own.
        keys: The public keys of peers on a network, with their names; others are not even let in.
        on_groups_found: Called on another thread when the groups of a peer that was `is_pending` are known.
        host_keys: For which host a key does not act.
        token_role: Returns the role of a token by its name and proof, on any thread; None for one that is not valid any
            more.
    """

    def __init__(  # noqa: PLR0913 - the three roles, and where names come from
        self,
        *,
        viewer: Iterable[str] = (),
        operator: Iterable[str] = (),
        admin: Iterable[str] = (),
        own_uid: int | None = None,
        groups_of: Callable[[Peer], frozenset[int]] | None = None,
        keys: Mapping[str, str] | None = None,
        on_groups_found: Callable[[], None] | None = None,
        host_keys: HostKeys | None = None,
        token_role: Callable[[str, str], Role | None] | None = None,
    ) -> None:
        self._token_role = token_role
        self._lock = threading.Lock()
        """Held while the groups of a user are looked up: the loop and a gateway may ask at the same time."""
        self._group_lookup = GroupLookup(groups_of, on_groups_found)
        self.keys = dict(keys or {})
        self._host_keys = host_keys or HostKeys()
        own = os.geteuid() if own_uid is None else own_uid
        self._members_by_role = {
            role: _RoleMembers(names) for role, names in zip(Role, (viewer, operator, admin), strict=True)
        }
        self._members_by_role[Role.ADMIN].uids.update({0, own})
        self._roles_by_key: dict[str, Role | None] = {}
        self._roles_by_user: dict[tuple[int, int], Role | None] = {}

    @property
    def unknown_names(self) -> list[str]:
        """The names in `[access]` that no user or group of this machine has; they give nobody anything."""
        wrong = {name for rule in self._members_by_role.values() for name in rule.unknown_names}
        nobodys = {f"key:{name}" for rule in self._members_by_role.values() for name in rule.keys} - {
            f"key:{name}" for name in self.keys.values()
        }
        return sorted(wrong | nobodys)

    def role_of(self, peer: Peer) -> Role | None:
        """Return the highest role of a peer, None for one that may do nothing."""
        if peer is LOCAL_PEER:
            return Role.ADMIN
        if peer.key:
            return self._role_of_key(peer.key)
        if peer.principal:
            return self._role_of_principal(peer.principal, peer.proof)
        if peer.uid < 0:
            return None
        try:
            return self._roles_by_user[peer.uid, peer.gid]
        except KeyError:
            with self._lock:
                return self._look_up_role(peer)

    def _look_up_role(self, peer: Peer) -> Role | None:
        if len(self._roles_by_user) >= _CACHE_LIMIT:
            self._roles_by_user.clear()
        groups = (
            self._group_lookup.get_groups(peer)
            if any(rule.gids for rule in self._members_by_role.values())
            else frozenset()
        )
        if groups is None:
            return self._highest_role(peer, frozenset({peer.gid}))
        role = self._roles_by_user[peer.uid, peer.gid] = self._highest_role(peer, groups)
        return role

    def host_of(self, peer: Peer) -> str:
        """Return the host for which a peer on the network acts: the name of its key; empty for all others.

        No peer acts for this host itself, whatever is listed under its name.
        """
        name = self.keys.get(peer.key, "") if peer.key and peer.key not in self._host_keys.disputed else ""
        return "" if name == self._host_keys.own_host else name

    def is_pending(self, peer: Peer) -> bool:
        """Return whether a peer may turn out to have a higher role, for the groups of its user are not known yet."""
        known = peer is LOCAL_PEER or peer.key or peer.principal
        return not known and self._group_lookup.is_pending(peer)

    @staticmethod
    def admission(current_access: Callable[[], Access]) -> Admission:
        """Return who may connect, by the access rules in force at the time, which `current_access` returns."""
        return Admission(
            lambda peer: current_access().role_of(peer) is not None,
            lambda peer: current_access().is_pending(peer),
            lambda peer: current_access().role_of(peer) is Role.ADMIN,
        )

    def _role_of_key(self, key: str) -> Role | None:
        name = self.keys.get(key)
        if name is None:
            return None
        if name not in self._roles_by_key:
            held = [role for role, rule in self._members_by_role.items() if name in rule.keys]
            self._roles_by_key[name] = max(held, key=ROLE_ORDER.__getitem__, default=None)
        return self._roles_by_key[name]

    def _role_of_principal(self, principal: str, proof: str) -> Role | None:
        """Return the role of a caller that came by the gateway, which has checked what it is."""
        prefix, _, name = principal.partition(":")
        if f"{prefix}:" == TOKEN_PREFIX:
            return self._token_role(name, proof) if self._token_role is not None else None
        if f"{prefix}:" != CERTIFICATE_PREFIX:
            return None
        held = [role for role, rule in self._members_by_role.items() if name in rule.certificates]
        return max(held, key=ROLE_ORDER.__getitem__, default=None)

    def _highest_role(self, peer: Peer, groups: frozenset[int]) -> Role | None:
        held = [role for role, rule in self._members_by_role.items() if rule.matches(peer, groups)]
        return max(held, key=ROLE_ORDER.__getitem__, default=None)


class _RoleMembers:
    """The list of one role, with its names looked up."""

    def __init__(self, names: Iterable[str]) -> None:
        self.is_everybody = False
        self.uids: set[int] = set()
        self.gids: set[int] = set()
        self.keys: set[str | None] = set()
        self.certificates: set[str] = set()
        self.unknown_names: list[str] = []
        for name in names:
            if not self._add_name(name):
                self.unknown_names.append(name)

    def _add_name(self, name: str) -> bool:
        try:
            if name == "*":
                self.is_everybody = True
            elif name.startswith("key:"):
                self.keys.add(name.removeprefix("key:"))
            elif name.startswith(CERTIFICATE_PREFIX):
                self.certificates.add(name.removeprefix(CERTIFICATE_PREFIX))
            elif name.isdecimal():
                self.uids.add(int(name))
            elif name.startswith("@"):
                group = name[1:]
                self.gids.add(int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
            else:
                self.uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            return False
        return True

    def matches(self, peer: Peer, groups: frozenset[int]) -> bool:
        return self.is_everybody or peer.uid in self.uids or not self.gids.isdisjoint(groups)
