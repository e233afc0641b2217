"""What is stored of a request, and whether a stored operation is the same one."""

from __future__ import annotations

import os

from ostler.errors import Conflict, MessageTooLarge
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import CAST, FANOUT, LENIENT, RETRY, SUBMIT
from ostler.store import NewOperation, OperationRecord, Requester

_MAX_ID_PREFIX = 200
MAX_ARGUMENTS_SIZE = 1024 * 1024
"""Bytes of the arguments of one operation: thousands of them are kept on disk."""


def new_operation(call: Call) -> NewOperation:
    """Return what is stored of a request.

    The id is that of the request, when its caller may send it again under that id. Others are unique for as long as
    their connection lasts only, and get one that is unique for ever.

    Raises:
        MessageTooLarge: Its arguments are too large to be kept.
    """
    request, context = call.request, call.context
    if len(request.arguments) > MAX_ARGUMENTS_SIZE:
        raise MessageTooLarge(
            f"the arguments of {call.full_name} have {len(request.arguments)} bytes, an operation stores at most "
            f"{MAX_ARGUMENTS_SIZE}",
            hint="store what is large elsewhere, and submit where it is", limit=MAX_ARGUMENTS_SIZE,
        )  # fmt: skip
    is_unique = request.flags & (SUBMIT | RETRY) and request.request_id
    return NewOperation(
        id=request.request_id if is_unique else f"{request.request_id[:_MAX_ID_PREFIX]}-{os.urandom(8).hex()}",
        topic=request.topic,
        method=request.method,
        arguments=bytes(request.arguments),
        flags=request.flags & LENIENT,
        requester=Requester(call.peer, context.role, call.origin, context.host),
        trace=context.trace,
        time_limit=request.time_limit if request.flags & (SUBMIT | CAST | FANOUT) else request.timeout,
    )


def check_same(record: OperationRecord, new: NewOperation) -> None:
    """Refuse an id that belongs to another operation, or to somebody else's.

    Raises:
        Conflict: It does.
    """
    ours = (record.account, record.topic, record.method, record.arguments)
    if ours != (new.requester.account, new.topic, new.method, new.arguments):
        raise Conflict(
            f"the id {new.id} belongs to another operation", hint="use a new id for each request", request_id=new.id
        )
