"""A submitted operation as its caller sees it: its status, its changes, its result. Imports no asyncio."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import msgspec

from ostler.errors import (
    Busy,
    ConnectionLost,
    DaemonNotRunning,
    DeadlineExceeded,
    Draining,
    ServiceNotFound,
    WireError,
    from_wire,
)
from ostler.messaging.clients.retry import Retry
from ostler.types import CONTROL_TOPIC, OperationState, OperationStatus

if TYPE_CHECKING:
    from ostler.messaging.clients.call_methods import CallKeywords
    from ostler.messaging.clients.sync_item_stream import ItemStream

SUBMIT_RETRY = Retry(attempts=10, on=(Busy, ConnectionLost), after_loss=(DaemonNotRunning, Draining, ServiceNotFound))
"""A submitted request is known by its id, over restarts too: to send it again is safe after any of these."""
AWAY_ERRORS = (ConnectionLost, DaemonNotRunning, Draining)
"""Errors of a daemon that is being restarted."""
FIRST_PAUSE, MAX_PAUSE = 0.1, 2.0
"""Seconds between two attempts to reach a daemon that is away: at first and at most."""


class SyncCalls(Protocol):
    """The part of a client that an `Operation` uses."""

    def on(self, **options: Unpack[CallKeywords]) -> SyncCalls:
        """See `Client.on`."""
        ...

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """See `Client.call`."""
        ...

    def stream(self, topic: str, method: str, /, **arguments: Any) -> ItemStream:
        """See `Client.stream`."""
        ...


def unknown_operation(operation_id: str, host: str | None) -> OperationStatus:
    """Return the status of an operation of which nothing but the id is known.

    Args:
        operation_id: The id.
        host: The host that runs it; None for the one of the daemon.
    """
    return OperationStatus(id=operation_id, topic="", host=host or "", method="", state=OperationState.QUEUED)


class OperationView:
    """What both kinds of handles know: where the operation is, and what was last heard of it.

    Attributes:
        status: The last known status.
    """

    def __init__(self, status: OperationStatus) -> None:
        self.status = status

    @property
    def id(self) -> str:
        """The id of the operation."""
        return self.status.id

    @property
    def host(self) -> str:
        """The host that runs it."""
        return self.status.host

    def final_result(self, result_type: Any) -> Any:
        """Return the result of an operation that has ended.

        Raises:
            OstlerError: What it ended with.
        """
        error = self.status.error
        if error is not None:
            raise from_wire(WireError(tuple(error.names or [error.name]), error.message, error.hint, error.details))
        return self.status.result if result_type is None else msgspec.convert(self.status.result, result_type)

    def __repr__(self) -> str:
        return f"<operation {self.id}: {self.status.topic}.{self.status.method} on {self.host}, {self.status.state}>"


class Operation(OperationView):
    """A submitted operation, for programs without a loop. Any thread, one at a time.

    Args:
        client: Reaches the daemon.
        status: What is known of it.
        result_type: The type that the result is decoded to; None for plain values.
    """

    def __init__(self, client: SyncCalls, status: OperationStatus, result_type: Any = None) -> None:
        super().__init__(status)
        self._client = client.on(type=OperationStatus, host=status.host or None)
        self._result_type = result_type

    def refresh(self) -> OperationStatus:
        """Ask for the status, and return it.

        Raises:
            OstlerError: It could not be asked for; `NotFound` when the operation was removed.
        """
        self.status = self._client.call(CONTROL_TOPIC, "operation.show", operation=self.id)
        return self.status

    def inspect(self) -> OperationStatus:
        """Ask for the status with arguments and result, and return it.

        Raises:
            NotPermitted: The caller lacks the role operator.
            OstlerError: It could not be asked for.
        """
        if self.refresh().is_hidden:
            self.status = self._client.call(CONTROL_TOPIC, "operation.inspect", operation=self.id)
        return self.status

    def watch(self, timeout: float | None = None) -> Iterator[OperationStatus]:
        """Yield the status: now, and after each change, until the operation has ended.

        When the daemon is away, this waits until it is back, and goes on.

        Args:
            timeout: Seconds to wait for the end at most; None for no limit.

        Raises:
            DeadlineExceeded: It has not ended in time.
            OstlerError: It cannot be watched.
        """
        ends = None if timeout is None else monotonic() + timeout
        pause = FIRST_PAUSE
        if self.status.state.is_final:
            yield self.status
        while not self.status.state.is_final:
            try:
                with self._client.on(timeout=time_left(ends, self)).stream(
                    CONTROL_TOPIC, "operation.watch", operation=self.id
                ) as stream:
                    for status in stream:
                        self.status, pause = status, FIRST_PAUSE
                        yield status
            except DeadlineExceeded:
                if ends is None:
                    raise
            except AWAY_ERRORS:
                pass
            time_left(ends, self)
            if not self.status.state.is_final:  # the daemon is away, or has ended the stream too early
                sleep(pause)
                pause = min(MAX_PAUSE, pause * 2)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, and return the result.

        Args:
            timeout: Seconds to wait at most; None for no limit. The operation goes on afterwards.

        Raises:
            DeadlineExceeded: It has not ended in time.
            OstlerError: What the operation ended with.
        """
        for _ in self.watch(timeout):
            pass
        if self.status.is_hidden:
            self.status = self._client.call(CONTROL_TOPIC, "operation.inspect", operation=self.id)
        return self.final_result(self._result_type)

    def cancel(self) -> OperationStatus:
        """Cancel it; one that runs is asked to stop, and may still succeed.

        Raises:
            Conflict: It has ended.
            OstlerError: It could not be cancelled.
        """
        self.status = self._client.call(CONTROL_TOPIC, "operation.cancel", operation=self.id)
        return self.status

    def retry(self) -> OperationStatus:
        """Queue it again, when it has failed or was cancelled; its recorded steps are not repeated.

        Raises:
            Conflict: It has not failed.
            OstlerError: It could not be queued.
        """
        self.status = self._client.call(CONTROL_TOPIC, "operation.retry", operation=self.id)
        return self.status


def time_left(ends: float | None, operation: OperationView) -> float | None:
    """Return the seconds that are left to wait, None for no limit.

    Raises:
        DeadlineExceeded: None are left, and the operation has not ended.
    """
    if ends is None:
        return None
    left = ends - monotonic()
    if left <= 0 and not operation.status.state.is_final:
        raise DeadlineExceeded(
            f"operation {operation.id} has not ended in time; it goes on",
            hint=f"`ostler operation watch {operation.id}` shows it", request_id=operation.id,
        )  # fmt: skip
    return max(0.0, left)
