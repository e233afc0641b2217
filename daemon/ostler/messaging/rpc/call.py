"""One request in progress on the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from ostler.clock import Clock
from ostler.errors import Cancelled, OstlerError
from ostler.messaging.wire.envelope import PROGRESS, STREAM, Request
from ostler.messaging.wire.request_context import Context, Progress, set_current_context
from ostler.redaction import Value
from ostler.types import LOCAL_PEER, Peer, Role

if TYPE_CHECKING:
    from ostler.messaging.rpc.durable_calls import AttemptedOperation
    from ostler.messaging.rpc.endpoint import Endpoint, Method


class Call:
    """A request on its way through the dispatcher; subclasses know how its end reaches the caller.

    It is *settled* when the caller has its answer, and *ended* when the work has really stopped: a thread cannot be
    stopped, so the one may come long before the other.

    Args:
        request: What was asked.
        peer: Who asks.
        clock: The source of time.
    """

    # What most requests never change stands in the class: one is made for each request.
    arrived_at = 0.0
    is_admitted = False
    is_answered = False
    is_started = False
    is_traced = False
    is_recorded = False
    """Whether its end was counted and told to those who look on."""
    ended_at: float | None = None
    """When a thread replied; None for what the loop answers: it ends when the loop says so."""
    reply_lock: threading.Lock | None = None
    """Taken, and never given back, by the one who answers; None for what only the loop answers."""
    task: asyncio.Task[object] | None = None
    parent: Context | None = None
    """The request that this one was made in, for one from within the daemon."""
    secrets: tuple[Value, ...] = ()
    """The spellings of its secret arguments, while they are looked for in whatever leaves."""
    operation: AttemptedOperation | None = None
    """The operation that this is an attempt of; None for what comes from a caller."""
    is_audited = True
    """Whether its end goes to the audit log: of a call that waits for an operation, the end of that does."""
    is_caller_gone = False
    """Whether its connection was lost, and not the request cancelled."""
    requested_method = ""
    """`topic.method` that was asked for, of a request that is relayed to other hosts; empty for any other."""
    client: object = None
    """The connection that it came on; None within the daemon."""
    is_resolved = False
    """Whether it names a method that there is here: `endpoint` and `method` are there from then on."""
    endpoint: Endpoint
    method: Method
    on_done: Callable[[Call, Any, BaseException | None], None]
    """Called with the end of the work of an `async def`."""

    def __init__(self, request: Request, peer: Peer, clock: Clock) -> None:
        self.request = request
        self.peer = peer
        self.context = self._make_context(clock)

    def _make_context(self, clock: Clock) -> Context:
        """Return the context of the work; role, deadline and trace are the dispatcher's to judge."""
        request = self.request
        on_progress = self.send_progress if request.flags & PROGRESS else None
        return Context(
            request.topic,
            request.method,
            request_id=request.request_id,
            peer=self.peer,
            role=Role.VIEWER,  # the lowest, until the dispatcher knows better
            clock=clock,
            on_progress=on_progress,
        )

    def claim_reply(self) -> bool:
        """Return True to the first who asks, who is then the one to answer. Any thread.

        The loop (a deadline, a cancel, a caller that has gone) and the thread that has the result may come at once.
        """
        if self.is_answered or (self.reply_lock is not None and not self.reply_lock.acquire(blocking=False)):
            return False
        self.is_answered = True
        return True

    def enter_context(self) -> None:
        """See `eager_start.WorkOwner`."""
        set_current_context(self.context)

    def task_name(self) -> str:
        """See `eager_start.WorkOwner`."""
        return self.full_name

    def on_work_done(self, result: Any, error: BaseException | None) -> None:
        """See `eager_start.WorkOwner`."""
        self.on_done(self, result, error)

    @property
    def origin(self) -> Peer:
        """Who is behind it: its peer, or for one from within the daemon that of the request in which it was made."""
        peer, parent = self.peer, self.parent
        while peer is LOCAL_PEER and parent is not None:
            peer, parent = parent.peer, parent.parent
        return peer

    @property
    def account(self) -> Hashable:
        """Whose share of what is bounded it uses; see `Peer.account`.

        Work that the daemon does within a caller's request is that caller's, but not of the same share: the request
        could not end otherwise when its caller has as much in progress as it may.
        """
        peer = self.peer
        if peer is not LOCAL_PEER:
            return peer.account
        origin = self.origin
        return peer.account if origin is LOCAL_PEER else (peer.account, origin.account)

    @property
    def takes_turns(self) -> bool:
        """See `eager_start.WorkOwner`; a stream takes its turns item by item."""
        served_first = self.peer is LOCAL_PEER or self.context.role is Role.ADMIN
        return not served_first and not self.request.flags & STREAM

    @property
    def full_name(self) -> str:
        """`topic.method`, for messages."""
        if self.requested_method:
            return self.requested_method
        return f"{self.request.topic}.{self.request.method}"

    def relay(self, request: Request, *, is_cast: bool) -> None:
        """Become a request to `ostler.relay`, which brings what was asked to other hosts.

        Args:
            request: That request.
            is_cast: Whether its result, how many have accepted it, goes to the caller as an acceptance.
        """
        raise NotImplementedError

    def pack(self, result: object) -> bytes:
        """Return the result as it goes to the caller. Any thread.

        Raises:
            EncodeError: It cannot be encoded.
            MessageTooLarge: It is too large.
        """
        raise NotImplementedError

    def pack_item(self, item: object, number: int) -> bytes:
        """Return an item of a stream as it goes to the caller; raises as `pack`. Any thread."""
        raise NotImplementedError

    def send_items(self, first: int, items: list[bytes]) -> None:
        """Give the caller the next items of a stream; `first` is the number of the first. On the loop."""
        raise NotImplementedError

    def send_reply(self, packed: bytes) -> None:
        """Give the caller the result. On the loop, once."""
        raise NotImplementedError

    @property
    def can_reply_from_thread(self) -> bool:
        """Whether `send_reply_from_thread` is worth a try."""
        return False

    def send_reply_from_thread(self, packed: bytes, claim: Callable[[], bool]) -> bool:
        """Give the caller the result, if nothing is to go out before it. Any thread but the loop's.

        Args:
            packed: The result.
            claim: See `ServerLink.send_from_thread`.

        Returns:
            Whether it was done; if not, `claim` was not asked or refused.
        """
        raise NotImplementedError

    def send_error(self, error: OstlerError) -> None:
        """Give the caller an error. On the loop, once."""
        raise NotImplementedError

    def send_accepted(self, reached: int) -> None:
        """Tell the caller of a cast that it was accepted. On the loop, once."""
        raise NotImplementedError

    def send_progress(self, progress: Progress) -> None:
        """Tell the caller how far the work is. Any thread."""
        raise NotImplementedError

    def on_registered(self) -> None:
        """Record that the work did not end at once. On the loop."""

    def on_ended(self) -> None:
        """Record that the work has ended. On the loop; only after `registered`."""

    @property
    def is_congested(self) -> bool:
        """Whether so much waits for the caller that no item of a stream should be made for it now. Any thread."""
        return False

    def stop(self) -> None:
        """Ask the work to stop: the context says so to a `def`, a task is cancelled. On the loop."""
        if self.context.cancelled:
            return  # once: a second time would break into the `finally` blocks that the first one runs
        self.context.cancel()
        if self.task is not None:
            self.task.cancel()

    def check_memory(self) -> None:
        """Raise if there is no room for what the caller would be answered. Any thread; called before the work begins.

        Raises:
            Busy: So much waits for this caller already.
        """

    def raise_if_cancelled(self) -> None:
        """Raise if nobody wants the work any more. Any thread; called just before it begins."""
        if self.context.cancelled:
            raise Cancelled(f"{self.full_name} was cancelled before it had started", request_id=self.request.request_id)
        self.context.check()
        self.is_started = True
