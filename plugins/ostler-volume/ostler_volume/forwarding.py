"""Forwards requests to the service on another host; those of an operation as operations there."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ostler import Cancelled, ConnectionLost, Context, DeadlineExceeded, OstlerError
from ostler_volume.api_types import SchedulerSelection
from ostler_volume.placement import NOT_STARTED_ERRORS, mark_not_started

T = TypeVar("T")
_MAY_HAVE_STARTED = (ConnectionLost, DeadlineExceeded, Cancelled)
"""Errors of a call to another host after which the work there may continue."""
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 10.0, 20.0, 30.0, 60.0, 60.0)
"""Seconds between attempts to reach a host that may have accepted the request, while it restarts."""


class Forwarder:
    """Forwards requests to the services on other hosts. All methods block.

    Args:
        client: The client of the manager.
        topic: The topic of the service, here and there.
        release_lease: Called with the keywords `lease` and `released` when the work of a lease was not begun.
    """

    def __init__(self, client: Any, topic: str, release_lease: Callable[..., None]) -> None:
        self._client = client
        self._topic = topic
        self._release_lease = release_lease

    def forward(
        self, ctx: Context, host: str, method: str, kind: type[T], arguments: dict[str, Any], number: int = 0
    ) -> T:
        """Forward a request to the service on another host, and return its result.

        Args:
            ctx: The request.
            host: The host.
            method: The method there.
            kind: The type of the result.
            arguments: The arguments.
            number: The number of the choice of the host, 0 for none: the steps of an operation are told apart by it.

        Raises:
            OstlerError: What it ended with there, or why it was not accepted.
        """
        client, arguments = self._client.on(host=host, type=kind), {"on_host": host, **arguments}
        if ctx.operation is None:
            done: T = client.call(self._topic, method, **arguments)
        else:
            client = client.on(request_id=f"{ctx.request_id}.{number}")
            done = forward_operation(ctx, client, self._topic, method, arguments)
        return done

    def forward_to_chosen(
        self, ctx: Context, chosen: SchedulerSelection, number: int, method: str, kind: type[T], wanted: dict[str, Any]
    ) -> T:
        """Create a volume on a chosen host; its lease is released if nothing was begun there."""
        arguments = {**wanted, "backend": chosen.backend, "by_choice": True, "lease": chosen.lease}
        try:
            with mark_not_started():
                return self.forward(ctx, chosen.host, method, kind, arguments, number)
        except OstlerError as error:
            # If it may have begun, that host reports the outcome, or the lease expires.
            if chosen.lease and not isinstance(error, _MAY_HAVE_STARTED):
                self._release_lease(lease=chosen.lease, released=True)
            raise


def forward_operation(
    ctx: Context,
    client: Any,
    topic: str,
    method: str,
    arguments: dict[str, Any],
    pauses: Sequence[float] = _PAUSES,
) -> Any:
    """Have a request carried out by an operation on another host, and return its result. Blocks.

    The operation there has an id that depends on this one alone: when this one is resumed it finds that again. It goes
    on while this daemon restarts, and is cancelled with this operation.

    Args:
        ctx: The request, of an operation.
        client: The client, with the options host, type and request_id.
        topic: The topic there.
        method: The method.
        arguments: Its arguments.
        pauses: Seconds between attempts to reach a host that may have accepted it.

    Raises:
        ConnectionLost: The host may have accepted it, and cannot be reached.
        OstlerError: It was not accepted, or what it ended with.
    """
    limited = client.on(time_limit=ctx.remaining())
    operation = _submit(ctx, lambda: limited.submit(topic, method, **arguments), f"{topic}.{method}", pauses)
    try:
        for status in operation.watch(ctx.remaining()):
            ctx.progress(status.done, status.total, status.text)
        return operation.result(ctx.remaining())
    except Cancelled:
        if ctx.cancelled and ctx.operation is not None and not ctx.operation.is_handed_over:
            _cancel(operation)
        raise


def _submit(ctx: Context, submit: Callable[[], Any], full_name: str, pauses: Sequence[float]) -> Any:
    may_have_begun = ctx.operation is not None and ctx.operation.is_resumed
    for pause in (*pauses, None):
        try:
            return submit()
        except (ConnectionLost, *NOT_STARTED_ERRORS) as error:
            may_have_begun = may_have_begun or isinstance(error, ConnectionLost)
            if not may_have_begun:
                raise
            if pause is None:
                # Not the error itself: it may say that nothing was begun, which is not known.
                raise ConnectionLost(
                    f"{full_name} may have been accepted, and its host cannot be reached: {error.message}",
                    hint="retry the operation when the host is back: `ostler operation retry`",
                ) from error
        _wait(ctx, pause)
    raise AssertionError("unreachable")


def _wait(ctx: Context, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ctx.check()
        time.sleep(min(0.2, left))


def _cancel(operation: Any) -> None:
    """Cancel the operation there, in nobody's request: calls of one that is cancelled are cancelled too."""
    try:
        contextvars.Context().run(operation.cancel)
    except OstlerError:
        return  # it has ended, or its host is gone: then it ends there by its time limit
