"""Events over HTTP, for programs without a loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import msgspec

from ostler.cli.http_client.connection import HttpResponse, Wait
from ostler.cli.http_client.decoding import decode_json
from ostler.cli.http_client.frames import Frame, lost_response_error, read_frames
from ostler.messaging.events.event import Event, Gap

_WHERE = "ostler.events"
_NO_TOPICS = "-"
"""How the API writes that no position is known of any topic."""


class _ShownEvent(msgspec.Struct, frozen=True):
    topic: str
    host: str
    name: str
    sequence: int
    epoch: int
    payload: Any = None
    at: datetime | None = None
    request_id: str = ""
    trace: str = ""
    priority: str = ""
    journaled: int = 0


class _ShownGap(msgspec.Struct, frozen=True):
    topic: str
    host: str
    first: int
    last: int
    journaled: bool = False


class HttpEventStream(Iterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` replaces those that are missing. One thread at a time.

    Args:
        response: The response of the API.
        wait: How long to wait until the subscription is established; for events there is no limit.

    Raises:
        OstlerError: It was refused.
    """

    def __init__(self, response: HttpResponse, wait: Wait) -> None:
        self._response = response
        self._frames = read_frames(response, _WHERE)
        self._is_open = True
        try:
            if not any(frame.ready for frame in self._frames):
                raise lost_response_error(_WHERE)
        except BaseException:
            self.close()
            raise
        wait.timeout = None
        wait.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __next__(self) -> Event | Gap:
        for frame in self._frames if self._is_open else ():
            if (found := _item_of(frame)) is not None:
                return found
        if self._is_open:
            raise lost_response_error(_WHERE)
        raise StopIteration

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        self._is_open = False
        self._response.close()


def _item_of(frame: Frame) -> Event | Gap | None:
    if frame.event:
        event: _ShownEvent = decode_json(frame.event, _ShownEvent, _WHERE)
        fields = msgspec.structs.asdict(event)
        return Event(**{**fields, "at": event.at.timestamp() if event.at is not None else 0.0})
    if frame.gap:
        gap: _ShownGap = decode_json(frame.gap, _ShownGap, _WHERE)
        return Gap(gap.topic, gap.host, gap.first, gap.last, gap.journaled)
    return None


def write_positions(positions: Mapping[str, int]) -> str:
    """Return positions in topics as the API reads them: `volume:12;images:3`."""
    return ";".join(f"{quote(topic, safe='')}:{number}" for topic, number in positions.items()) or _NO_TOPICS
