"""The last event of each key, for those who join late."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_EVENT_DIVISOR = 8
"""An event above this share of all bytes is not kept: it would push out too many others."""

_MAX_UNSORTED = 64
_MAX_UNSORTED_SIZE = 4096
"""So many events, and up to so many bytes each, wait to be sorted in."""


class _TopicEvents:
    """The keys of one topic, in the order in which they were published, and their bytes."""

    __slots__ = ("keys", "size")

    def __init__(self) -> None:
        self.keys: dict[bytes, None] = {}
        self.size = 0


class LastValueCache:
    """The last event of each key in memory. On the loop.

    When there are too many, the topic with the most gives up those that were published longest ago: one that makes up
    ever new names does not push out the events of others.

    Args:
        max_keys: The most keys.
        max_bytes: The most bytes.
        host: The host in the keys: what stands before it is the topic.
    """

    def __init__(self, max_keys: int, max_bytes: int, host: str = "") -> None:
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._bytes = 0
        self._topic_terminator = f".{host}.".encode() if host else b"."
        self._values: dict[bytes, bytes] = {}
        self._topics: dict[bytes, _TopicEvents] = {}
        self._unsorted: dict[bytes, bytes] = {}

    @property
    def stats(self) -> tuple[int, int]:
        """How many are kept, and their bytes."""
        self._merge_unsorted()
        return len(self._values), self._bytes

    def set_limits(self, max_keys: int, max_bytes: int) -> None:
        """Take other limits, as a reload does."""
        self._max_keys, self._max_bytes = max_keys, max_bytes
        self._merge_unsorted()
        self._evict()

    def put(self, key: bytes, body: bytes) -> None:
        """Keep an event as the last of its key. Runs for each event: what is new is sorted in now and then."""
        self._unsorted[key] = body
        if len(self._unsorted) > _MAX_UNSORTED or len(body) > _MAX_UNSORTED_SIZE:
            self._merge_unsorted()

    def _merge_unsorted(self) -> None:
        new, self._unsorted = self._unsorted, {}
        for key, body in new.items():
            self._store(key, body)

    def _store(self, key: bytes, body: bytes) -> None:
        self._remove(key)  # to the end of the order
        if len(body) * _MAX_EVENT_DIVISOR > self._max_bytes:
            return
        topic = self._topic_of(key)
        mine = self._topics.get(topic)
        if mine is None:
            mine = self._topics[topic] = _TopicEvents()
        mine.keys[key] = None
        mine.size += len(body)
        self._values[key] = body
        self._bytes += len(body)
        if self._bytes > self._max_bytes or len(self._values) > self._max_keys:
            self._evict()

    def _topic_of(self, key: bytes) -> bytes:
        return key.partition(self._topic_terminator)[0]

    def _remove(self, key: bytes) -> None:
        body = self._values.pop(key, None)
        if body is None:
            return
        self._bytes -= len(body)
        topic = self._topic_of(key)
        mine = self._topics[topic]
        mine.size -= len(body)
        del mine.keys[key]
        if not mine.keys:
            del self._topics[topic]

    def matching(self, prefixes: Iterable[bytes]) -> list[bytes]:
        """Return those whose keys begin with one of the prefixes, in the order in which they were published."""
        self._merge_unsorted()
        wanted = tuple(prefixes)
        return [body for key, body in self._values.items() if key.startswith(wanted)]

    def _evict(self) -> None:
        while self._values and (self._bytes > self._max_bytes or len(self._values) > self._max_keys):
            by_size = self._bytes > self._max_bytes
            most = max(self._topics.values(), key=lambda topic: topic.size if by_size else len(topic.keys))
            self._remove(next(iter(most.keys)))
