"""Runs a request that cannot be stored: what frees space has to work on a full disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import CAST, FANOUT, SUBMIT
from ostler.operations.operation_call import AttemptState, OperationCall, StepStore
from ostler.store import NewOperation, OperationRecord
from ostler.types import OperationState

if TYPE_CHECKING:
    from ostler.messaging.rpc.dispatcher import Dispatcher


def may_run_unstored(call: Call) -> bool:
    """Return whether a request may be served without being stored while the database cannot be written.

    Whoever submits is promised that it is stored, and whoever casts does not learn how it ended.
    """
    policy = call.method.exposure.durable
    return policy is not None and policy.runs_unstored and not call.request.flags & (SUBMIT | CAST | FANOUT)


async def run_unstored(dispatcher: Dispatcher, steps: StepStore, number: int, call: Call, new: NewOperation) -> object:
    """Run a plain call of a durable method as if it were not durable, and return its result. On the loop.

    Args:
        dispatcher: Runs its method.
        steps: Where those of other operations are stored.
        number: The number of the request.
        call: The call; the work is asked to stop with it.
        new: What would have been stored.

    Raises:
        OstlerError: What it ended with.
    """
    policy = call.method.exposure.durable
    assert policy is not None  # noqa: S101 - see `may_run_unstored`
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_end(_attempt: OperationCall) -> None:
        if not ended.done():
            ended.set_result(None)

    state = AttemptState(_unstored_record(new, dispatcher.host), new.requester, {}, steps)
    attempt = OperationCall(
        dispatcher.clock, number, state, new.time_limit, policy, on_end, lambda running: _pass_on(running, call)
    )
    attempt.context.operation = None  # its steps are not recorded
    call.is_audited = False  # the attempt is
    dispatcher.dispatch(attempt)
    try:
        await ended
    except asyncio.CancelledError:
        attempt.stop()
        raise
    if attempt.error is not None:
        raise attempt.error
    return None if attempt.result is None else msgspec.Raw(attempt.result)


def _pass_on(attempt: OperationCall, call: Call) -> None:
    call.context.progress(*attempt.progress)


def _unstored_record(new: NewOperation, host: str) -> OperationRecord:
    return OperationRecord(
        number=0, id=new.id, host=host, topic=new.topic, method=new.method, arguments=new.arguments, flags=new.flags,
        account=new.requester.account, requester=b"", trace=new.trace, state=OperationState.RUNNING, why="", since=0.0,
        submitted_at=0.0, submitted_boot_id="", submitted_boot=0.0, time_limit=new.time_limit, attempts=1,
        interruptions=0, next_attempt_at=0.0, cancelled_by="", owner="", lease_boot_id="", lease_boot=0.0,
        lease_wall=0.0, done=0.0, total=0.0, text="", result=None, error=None,
    )  # fmt: skip
