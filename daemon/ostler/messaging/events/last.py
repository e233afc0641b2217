"""The last event of each key, for those who join late."""

from __future__ import annotations

from collections.abc import Iterable

_LARGEST_SHARE = 8
"""An event above this share of all bytes is not kept: it would push out too many others."""

_NEW = 64
_SMALL = 4096
"""So many events, and up to so many bytes each, wait to be sorted in."""


class LastEvents:
    """The last event of each key in memory; those that were published longest ago go first. On the loop.

    Args:
        count: The most keys.
        size: The most bytes.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._bytes = 0
        self._kept: dict[bytes, bytes] = {}
        self._new: dict[bytes, bytes] = {}

    @property
    def stats(self) -> tuple[int, int]:
        """How many are kept, and their bytes."""
        self._sort_in()
        return len(self._kept), self._bytes

    def limit(self, count: int, size: int) -> None:
        """Take other limits, as a reload does."""
        self._count, self._size = count, size
        self._sort_in()
        self._shrink()

    def put(self, key: bytes, body: bytes) -> None:
        """Keep an event as the last of its key. Runs for each event: what is new is sorted in now and then."""
        self._new[key] = body
        if len(self._new) > _NEW or len(body) > _SMALL:
            self._sort_in()

    def _sort_in(self) -> None:
        new, self._new = self._new, {}
        for key, body in new.items():
            self._keep(key, body)

    def _keep(self, key: bytes, body: bytes) -> None:
        kept = self._kept
        old = kept.pop(key, b"")  # to the end of the order
        if len(body) * _LARGEST_SHARE > self._size:
            self._bytes -= len(old)
            return
        kept[key] = body
        self._bytes += len(body) - len(old)
        if self._bytes > self._size or len(kept) > self._count:
            self._shrink()

    def fitting(self, prefixes: Iterable[bytes]) -> list[bytes]:
        """Return those whose keys begin with one of the prefixes, in the order in which they were published."""
        self._sort_in()
        wanted = tuple(prefixes)
        return [body for key, body in self._kept.items() if key.startswith(wanted)]

    def _shrink(self) -> None:
        while self._kept and (self._bytes > self._size or len(self._kept) > self._count):
            self._bytes -= len(self._kept.pop(next(iter(self._kept))))
