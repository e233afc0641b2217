"""The last event of each key, for those who join late."""

from __future__ import annotations

from collections.abc import Iterable

_LARGEST_SHARE = 8
"""An event above this share of all bytes is not kept: it would push out too many others."""

_NEW = 64
_SMALL = 4096
"""So many events, and up to so many bytes each, wait to be sorted in."""


class _TopicEvents:
    """The keys of one topic, in the order in which they were published, and their bytes."""

    __slots__ = ("keys", "size")

    def __init__(self) -> None:
        self.keys: dict[bytes, None] = {}
        self.size = 0


class LastEvents:
    """The last event of each key in memory. On the loop.

    When there are too many, the topic with the most gives up those that were published longest ago: one that makes up
    ever new names does not push out the events of others.

    Args:
        count: The most keys.
        size: The most bytes.
        host: The host in the keys: what stands before it is the topic.
    """

    def __init__(self, count: int, size: int, host: str = "") -> None:
        self._count = count
        self._size = size
        self._bytes = 0
        self._after_topic = f".{host}.".encode() if host else b"."
        self._kept: dict[bytes, bytes] = {}
        self._topics: dict[bytes, _TopicEvents] = {}
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
        self._remove(key)  # to the end of the order
        if len(body) * _LARGEST_SHARE > self._size:
            return
        topic = self._topic_of(key)
        mine = self._topics.get(topic)
        if mine is None:
            mine = self._topics[topic] = _TopicEvents()
        mine.keys[key] = None
        mine.size += len(body)
        self._kept[key] = body
        self._bytes += len(body)
        if self._bytes > self._size or len(self._kept) > self._count:
            self._shrink()

    def _topic_of(self, key: bytes) -> bytes:
        return key.partition(self._after_topic)[0]

    def _remove(self, key: bytes) -> None:
        body = self._kept.pop(key, None)
        if body is None:
            return
        self._bytes -= len(body)
        topic = self._topic_of(key)
        mine = self._topics[topic]
        mine.size -= len(body)
        del mine.keys[key]
        if not mine.keys:
            del self._topics[topic]

    def fitting(self, prefixes: Iterable[bytes]) -> list[bytes]:
        """Return those whose keys begin with one of the prefixes, in the order in which they were published."""
        self._sort_in()
        wanted = tuple(prefixes)
        return [body for key, body in self._kept.items() if key.startswith(wanted)]

    def _shrink(self) -> None:
        while self._kept and (self._bytes > self._size or len(self._kept) > self._count):
            by_size = self._bytes > self._size
            most = max(self._topics.values(), key=lambda topic: topic.size if by_size else len(topic.keys))
            self._remove(next(iter(most.keys)))
