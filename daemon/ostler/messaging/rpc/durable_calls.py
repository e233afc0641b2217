"""What the dispatcher knows of operations: that something stores them, and that a request may be an attempt of one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from ostler.errors import InvalidInput, WrongCallKind
from ostler.messaging.wire.envelope import CAST, FANOUT, STREAM, SUBMIT
from ostler.messaging.wire.request_context import Context, RunningOperation

if TYPE_CHECKING:
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.rpc.endpoint import Method


class DurableCalls(Protocol):
    """Stores requests as operations and runs them. On the loop."""

    def accept(self, call: Call) -> Coroutine[Any, Any, object]:
        """Store an admitted request, whose arguments fit the method.

        Returns:
            What the caller is to get: of a submitted request the status of the operation, as soon as it is stored; of a
            plain call its result.

        Raises:
            OstlerError: It was not stored; or, of a plain call, what the operation ended with.
        """
        ...


class AttemptedOperation(RunningOperation, Protocol):
    """The operation that a call is an attempt of."""

    def set_caller(self, context: Context) -> None:
        """Put the one who submitted the operation into the context, with the role that it had then."""
        ...

    def method_to_run(self, method: Method) -> Method:
        """Return the method that this attempt runs: the one that was asked for, or the one that cleans up after it."""
        ...


def check_operation_kind(call: Call) -> None:
    """Refuse to store what cannot be an operation.

    Raises:
        WrongCallKind: The method yields, or the request is submitted and something else as well.
        InvalidInput: It has secret arguments, which are not stored.
    """
    name = call.full_name
    if call.method.signature.is_streaming or call.request.flags & STREAM:
        raise WrongCallKind(
            f"{name} yields, and cannot be submitted", hint="use `for item in client.stream(…)`", method=name
        )
    if call.request.flags & SUBMIT and call.request.flags & (CAST | FANOUT):
        raise WrongCallKind(f"{name} is submitted and cast at once", hint="submit it", method=name)
    if call.secrets:
        raise InvalidInput(
            f"{name} was given a secret, and operations do not store secrets",
            hint="call the method instead of submitting it", method=name,
        )  # fmt: skip
