"""The groups of users, looked up on threads: a user database on a network may take long, or not answer at all."""

from __future__ import annotations

import logging
import os
import pwd
import threading
import time
from collections.abc import Callable

from ostler.types import Peer

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
        threading.Thread(target=look, name=f"ostler-groups-{peer.uid}", daemon=True).start()
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
