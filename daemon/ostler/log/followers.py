"""Who follows the log of the running process: each gets the records it wants, whatever the levels of the log are.

When nobody follows, the log pays one comparison a record. What waits for a follower is bounded: what it does not take
in time is dropped and counted, and the log itself never waits.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ostler.errors import Busy
from ostler.log.fields import fields_of
from ostler.log.formats import format_continuation, format_fields, format_message
from ostler.manager_types import FollowedRecord, FollowedRecords

MAX_FOLLOWERS = 16
MAX_WAITING_RECORDS = 2000
MAX_WAITING_CHARS = 1_000_000
"""How many records, and how many characters of them, may wait for one follower."""
NOBODY = 10_000
"""The least level that is followed when nobody follows: above all levels."""


class Filter(NamedTuple):
    """What a follower wants.

    Attributes:
        level: The number of the least level; 0 for what the log itself has.
        logger: Only this logger and those below it; empty for all.
        service: Only records of this service; empty for all.
        request_id: Only records of this request; empty for all.
    """

    level: int = 0
    logger: str = ""
    service: str = ""
    request_id: str = ""

    def matches(self, record: logging.LogRecord, *, is_logged: bool) -> bool:
        """Return whether a record is wanted; `is_logged` says that it is in the log as well."""
        if record.levelno < self.level or not (self.level or is_logged):
            return False
        if self.logger and record.name != self.logger and not record.name.startswith(f"{self.logger}."):
            return False
        if not (self.service or self.request_id):
            return True
        fields = fields_of(record)
        if self.request_id and fields.get("request_id") != self.request_id:
            return False
        return not self.service or self.service in (fields.get("service"), record.name.rpartition(".service.")[2])


class Follower:
    """Records on their way to somebody who follows the log. Any thread.

    Args:
        wanted: Which records.
        on_record: Called on the thread that logs when there are records to take; must not block or raise.
    """

    def __init__(self, wanted: Filter, on_record: Callable[[], None]) -> None:
        self.wanted = wanted
        self._on_record = on_record
        self._waiting: deque[FollowedRecord] = deque()
        self._waiting_chars = 0
        self._dropped = 0

    def offer(self, record: FollowedRecord) -> None:
        """Take a record in, or drop and count it when too much is waiting."""
        size = len(record.message) + len(record.detail)
        if len(self._waiting) >= MAX_WAITING_RECORDS or self._waiting_chars + size > MAX_WAITING_CHARS:
            self._dropped += 1
            return
        self._waiting.append(record)
        self._waiting_chars += size
        if len(self._waiting) == 1:
            self._on_record()

    def take(self) -> FollowedRecords:
        """Return what is waiting, and how many records were dropped since the last time."""
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        # Counts may be off by what other threads do at this moment; they bound memory and need no lock.
        self._waiting_chars = 0
        dropped, self._dropped = self._dropped, 0
        return FollowedRecords(records=taken, dropped=dropped)


class Followers:
    """All who follow the log of this process."""

    def __init__(self) -> None:
        self._followers: tuple[Follower, ...] = ()
        self._pid = os.getpid()
        self.level = NOBODY
        """The least level that anybody wants beyond what the log has."""

    @property
    def are_present(self) -> bool:
        """Whether anybody follows, in this process: a forked child has the followers of its parent."""
        return bool(self._followers) and self._pid == os.getpid()

    def add(self, follower: Follower) -> None:
        """Begin to follow.

        Raises:
            Busy: Too many follow already.
        """
        if len(self._followers) >= MAX_FOLLOWERS:
            raise Busy(f"{MAX_FOLLOWERS} clients follow the log already", hint="end one of them", retry_after=10.0)
        self._pid = os.getpid()
        self._set((*self._followers, follower))

    def remove(self, follower: Follower) -> None:
        """End following."""
        self._set(tuple(each for each in self._followers if each is not follower))

    def _set(self, followers: tuple[Follower, ...]) -> None:
        self._followers = followers
        self.level = min((each.wanted.level or NOBODY for each in followers), default=NOBODY)

    def offer(self, record: logging.LogRecord, *, is_logged: bool) -> None:
        """Pass a record on to all who want it; never raises. On the thread that logs.

        Args:
            record: The record, with the request that it was written in.
            is_logged: Whether the log itself has it.
        """
        try:
            wanted = [each for each in self._followers if each.wanted.matches(record, is_logged=is_logged)]
            if not wanted:
                return
            followed = _followed_record(record)
            for each in wanted:
                each.offer(followed)
        except BaseException:  # noqa: BLE001 - what a line is about may be a plugin's, and raise anything
            for each in self._followers:
                each.offer(FollowedRecord(at=record.created, level="error", logger=record.name, message=_UNREADABLE))


_UNREADABLE = "a line could not be formatted"
FOLLOWERS = Followers()
"""Those of this process: `logging` is its own as well."""


def _followed_record(record: logging.LogRecord) -> FollowedRecord:
    return FollowedRecord(
        at=record.created,
        level=record.levelname.lower(),
        logger=record.name,
        message=format_message(record),
        fields={str(name): str(value) for name, value in format_fields(record).items()},
        detail=format_continuation(record),
    )
