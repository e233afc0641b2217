"""The lines of a streamed response (NDJSON): items, progress, a result, events, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ostler.cli.http_client.connection import HttpResponse
from ostler.cli.http_client.decoding import decode_json
from ostler.cli.http_client.problems import Problem, problem_error
from ostler.errors import ConnectionLost, OstlerError
from ostler.messaging.wire.client_errors import lost_call_error

_NOTHING = msgspec.Raw(b"")


class ProgressFrame(msgspec.Struct, frozen=True):
    """How far a call is."""

    done: float
    total: float
    text: str = ""


class Frame(msgspec.Struct, frozen=True):
    """A line: of these one is there, all others have their defaults. Lines of other kinds have none.

    Attributes:
        item: An item of a stream, not decoded yet.
        result: The result of a call, not decoded yet.
        event: An event, not decoded yet.
        gap: Missing events, not decoded yet.
        ready: Whether a subscription is established.
        progress: How far a call is.
        end: What is said at the end of a stream.
        error: What it ended with.
        stopping: Whether the server ends it.
    """

    item: msgspec.Raw = _NOTHING
    result: msgspec.Raw = _NOTHING
    event: msgspec.Raw = _NOTHING
    gap: msgspec.Raw = _NOTHING
    ready: msgspec.Raw = _NOTHING
    progress: ProgressFrame | None = None
    end: dict[str, Any] | None = None
    error: Problem | None = None
    stopping: dict[str, Any] | None = None


def lost_response_error(where: str) -> OstlerError:
    """Return the error of a response that did not say how it ended: it was cut off."""
    return lost_call_error(where, ConnectionLost("the response ended early"))


def read_frames(response: HttpResponse, where: str) -> Iterator[Frame]:
    """Yield the frames of a response, until the connection ends.

    Args:
        response: The response.
        where: `topic.method`, for messages.

    Raises:
        ConnectionLost: The connection was lost, or the server is stopping.
        OstlerError: What the server says that they ended with, or what the response is.
    """
    while (lines := response.read_lines()) is not None:
        for line in lines:
            frame: Frame = decode_json(line, Frame, where)
            if frame.error is not None:
                raise problem_error(frame.error)
            if frame.stopping is not None:
                raise lost_call_error(where, ConnectionLost("the HTTP service is stopping"))
            yield frame
