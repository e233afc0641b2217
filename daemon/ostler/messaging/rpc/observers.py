"""What a dispatcher is given to notify or ask: the audit log, the tracer, and the relay to other hosts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ostler.errors import OstlerError

if TYPE_CHECKING:
    from ostler.messaging.rpc.call import Call
    from ostler.types import Peer


class AuditObserver(Protocol):
    """Records who did what. On the loop's thread; must not block and must not raise."""

    def record(self, call: Call, error: OstlerError | None) -> None:
        """Record a request that was refused, or one that changes something and has completed.

        A call has ended when its caller was answered, a cast when its work was done.

        Args:
            call: The request. `call.method` is there only when it was found (`call.is_resolved` says so).
            error: What it ended with; None when it was done.
        """
        ...

    def record_refusal(self, peer: Peer, topic: str, method: str, error: OstlerError) -> None:
        """Record that a peer was refused before there was a request: a connection, or a subscription to events.

        Args:
            peer: Who; of a key that is not known, its name is where it came from.
            topic: What it is filed under.
            method: What was wanted: `connect`, `subscribe`.
            error: Why not.
        """
        ...


class RequestTracer(Protocol):
    """Follows requests through this process. On the loop's thread; must not block and must not raise."""

    def begin(self, call: Call) -> AbstractContextManager[None]:
        """Record that a request is about to be run; may put another `trace` into its context.

        Returns:
            What the work is begun inside of: context variables that are set there go along with it.
        """
        ...

    def end(self, call: Call, error: OstlerError | None) -> None:
        """Record that it has ended, as `AuditObserver.record` counts ends; only after `begin`."""
        ...

    def refused(self, call: Call, error: OstlerError) -> None:
        """Record that a request was refused before it was to be run; see `AuditObserver.record` for what it has."""
        ...


class DispatcherHooks(NamedTuple):
    """Who is notified of requests, and who takes part in them. On the loop's thread.

    Attributes:
        audit: Records who did what; None without an audit log.
        tracer: Follows requests through this process; None without a tracer.
        on_fanout: Called with topic, method and request id of each accepted fanout; None for nobody.
        relay: Makes a request that is for other hosts one to `ostler.relay`, and returns whether it was; None without
            peers.
    """

    audit: AuditObserver | None = None
    tracer: RequestTracer | None = None
    on_fanout: Callable[[str, str, str], None] | None = None
    relay: Callable[[Call], bool] | None = None
