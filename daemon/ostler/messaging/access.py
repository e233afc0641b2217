"""Who may do what: from the user or key behind a connection to a role."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping

from ostler.messaging.groups import Groups
from ostler.messaging.transport import Admission
from ostler.types import LOCAL_PEER, ROLE_ORDER, Peer, Role

_CACHE_LIMIT = 4096


class Access:
    """Maps peers to roles, as `[access]` says; whoever is not named gets nothing.

    Root and the daemon's own user are admin. Names are looked up when this is made, the groups of a user when it is
    first seen; a reload makes a new one, so that changes in the user database are seen then. As long as that does not
    answer, a user has the group it came with, and no others. Not thread-safe.

    Args:
        viewer: Who may look: user names, uids, `@group`, `*` for every local user, and `key:NAME` for a key.
        operator: Who may also do the daily work.
        admin: Who may do all.
        own_uid: The daemon's own uid; None for that of this process.
        groups_of: Returns the gids of a peer's user, on any thread; a test brings its own.
        keys: The public keys of peers on a network, with their names; others are not even let in.
        on_decided: Told, on another thread, that a peer which was `undecided` may be judged again.
    """

    def __init__(
        self,
        *,
        viewer: Iterable[str] = (),
        operator: Iterable[str] = (),
        admin: Iterable[str] = (),
        own_uid: int | None = None,
        groups_of: Callable[[Peer], frozenset[int]] | None = None,
        keys: Mapping[str, str] | None = None,
        on_decided: Callable[[], None] | None = None,
    ) -> None:
        self._groups = Groups(groups_of, on_decided)
        self.keys = dict(keys or {})
        self.own_host = ""
        """The name of this host."""
        self.disputed: Collection[str] = ()
        """Keys that speak for no host, because it is not known which of two hosts they are."""
        own = os.geteuid() if own_uid is None else own_uid
        self._rules = {role: _Rule(names) for role, names in zip(Role, (viewer, operator, admin), strict=True)}
        self._rules[Role.ADMIN].uids.update({0, own})
        self._roles_of_keys: dict[str, Role | None] = {}
        self._roles: dict[tuple[int, int], Role | None] = {}

    @property
    def unknown(self) -> list[str]:
        """The names in `[access]` that no user or group of this machine has; they give nobody anything."""
        wrong = {name for rule in self._rules.values() for name in rule.unknown}
        nobodys = {f"key:{name}" for rule in self._rules.values() for name in rule.keys} - {
            f"key:{name}" for name in self.keys.values()
        }
        return sorted(wrong | nobodys)

    def role_of(self, peer: Peer) -> Role | None:
        """Return the highest role of a peer, None for one that may do nothing."""
        if peer is LOCAL_PEER:
            return Role.ADMIN
        if peer.key:
            return self._role_of_key(peer.key)
        if peer.uid < 0:
            return None
        key = (peer.uid, peer.gid)
        if key not in self._roles:
            if len(self._roles) >= _CACHE_LIMIT:
                self._roles.clear()
            groups = self._groups.of(peer) if any(rule.gids for rule in self._rules.values()) else frozenset()
            if groups is None:
                return self._judge(peer, frozenset({peer.gid}))
            self._roles[key] = self._judge(peer, groups)
        return self._roles[key]

    def host_of(self, peer: Peer) -> str:
        """Return the host for which a peer on the network speaks: the name of its key; empty for all others.

        For this host itself nobody speaks from outside, whatever stands under its name.
        """
        name = self.keys.get(peer.key, "") if peer.key and peer.key not in self.disputed else ""
        return "" if name == self.own_host else name

    def undecided(self, peer: Peer) -> bool:
        """Return whether a peer may turn out to have a higher role, for the groups of its user are not known yet."""
        return peer is not LOCAL_PEER and not peer.key and self._groups.awaited(peer)

    @staticmethod
    def admission(now: Callable[[], Access]) -> Admission:
        """Return who may connect, by the access rules that are in force at the moment: `now` returns them."""
        return Admission(
            lambda peer: now().role_of(peer) is not None,
            lambda peer: now().undecided(peer),
            lambda peer: now().role_of(peer) is Role.ADMIN,
        )

    def _role_of_key(self, key: str) -> Role | None:
        name = self.keys.get(key)
        if name is None:
            return None
        if name not in self._roles_of_keys:
            held = [role for role, rule in self._rules.items() if name in rule.keys]
            self._roles_of_keys[name] = max(held, key=ROLE_ORDER.__getitem__, default=None)
        return self._roles_of_keys[name]

    def _judge(self, peer: Peer, groups: frozenset[int]) -> Role | None:
        held = [role for role, rule in self._rules.items() if rule.fits(peer, groups)]
        return max(held, key=ROLE_ORDER.__getitem__, default=None)


class _Rule:
    """The list of one role, with its names looked up."""

    def __init__(self, names: Iterable[str]) -> None:
        self.everybody = False
        self.uids: set[int] = set()
        self.gids: set[int] = set()
        self.keys: set[str | None] = set()
        self.unknown: list[str] = []
        for name in names:
            if not self._take(name):
                self.unknown.append(name)

    def _take(self, name: str) -> bool:
        import grp
        import pwd

        try:
            if name == "*":
                self.everybody = True
            elif name.startswith("key:"):
                self.keys.add(name.removeprefix("key:"))
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

    def fits(self, peer: Peer, groups: frozenset[int]) -> bool:
        return self.everybody or peer.uid in self.uids or not self.gids.isdisjoint(groups)
