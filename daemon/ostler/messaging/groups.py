"""The groups of users, looked up on threads: a user database on a network may take long, or not answer at all."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from ostler.types import Peer

_log = logging.getLogger(__name__)
PATIENCE = 0.008
"""Seconds that the loop waits for a look-up; the files of this machine take a thousandth of that."""
HASTE = 0.0
"""Seconds that it waits while another one takes longer than that: the loop has waited enough."""
_AT_ONCE = 8
"""Look-ups under way; users beyond that are looked up when they ask again."""
_OF_ONE = 2
"""Look-ups under way of one user, who may come with any of its groups as its own one."""
_LIMIT = 4096

Key = tuple[int, int]


class _Lookup:
    """One look-up, until it is taken."""

    __slots__ = ("began", "done", "groups", "late")

    def __init__(self) -> None:
        self.late = False
        """Whether somebody was judged without it."""
        self.began = time.monotonic()
        self.done = threading.Event()
        self.groups: frozenset[int] = frozenset()


class Groups:
    """Finds the groups of a peer's user, and holds the loop up for a moment at most. On the loop's thread.

    What comes later is there for the next request. Nothing is kept that was taken: whoever asks keeps it.

    Args:
        find: Returns the groups of a peer's user; may take any time. On threads of its own.
        on_found: Told of groups that came too late for somebody, on the thread of the look-up.
    """

    def __init__(
        self,
        find: Callable[[Peer], frozenset[int]] | None = None,
        on_found: Callable[[], None] | None = None,
    ) -> None:
        self._find = find or groups_of
        self._on_found = on_found or _nothing
        self._under_way: dict[Key, _Lookup] = {}

    def of(self, peer: Peer) -> frozenset[int] | None:
        """Return the groups of a peer's user, None when they are not known yet."""
        key = (peer.uid, peer.gid)
        lookup = self._under_way.get(key)
        if lookup is None:
            lookup = self._begin(key, peer)
            if lookup is None:
                return None
            overdue = any(each.began < lookup.began - PATIENCE for each in self._under_way.values())
            if not lookup.done.wait(HASTE if overdue else PATIENCE):
                _log.warning("the groups of %s take long to look up; it has its own one alone meanwhile", peer.name)
        if not lookup.done.is_set():
            lookup.late = True
            if not lookup.done.is_set():  # once more: one that ends from here on tells of itself
                return None
        del self._under_way[key]
        return lookup.groups

    def awaited(self, peer: Peer) -> bool:
        """Return whether the groups of a peer's user are not known yet, and are wanted."""
        return (peer.uid, peer.gid) in self._under_way

    def _begin(self, key: Key, peer: Peer) -> _Lookup | None:
        running = [uid for (uid, _), each in self._under_way.items() if not each.done.is_set()]
        if len(running) >= _AT_ONCE or running.count(peer.uid) >= _OF_ONE:
            return None
        if len(self._under_way) >= _LIMIT:  # found, and never asked for again
            self._under_way = {key: each for key, each in self._under_way.items() if not each.done.is_set()}
        lookup = self._under_way[key] = _Lookup()

        def look() -> None:
            try:
                lookup.groups = self._find(peer)
            finally:
                lookup.done.set()
                if lookup.late:
                    self._on_found()

        # A thread that hangs in there must not hold up the end of the process.
        threading.Thread(target=look, name=f"ostler-groups-{peer.uid}", daemon=True).start()
        return lookup


def _nothing() -> None:
    """Stand in until somebody wants to be told."""


def groups_of(peer: Peer) -> frozenset[int]:
    """Return the gids of a peer's user, as the user database says; blocks."""
    import pwd

    own = {peer.gid} if peer.gid >= 0 else set()
    try:
        name = pwd.getpwuid(peer.uid).pw_name
        return frozenset(own.union(os.getgrouplist(name, peer.gid)))
    except (KeyError, OSError):  # a uid without a name (containers, DynamicUser) has the group it came with
        return frozenset(own)
