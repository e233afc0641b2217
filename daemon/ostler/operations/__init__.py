"""Operations: requests that are stored before they are accepted, survive the daemon, and can be watched and cancelled.

`Operations` accepts, runs and ends them; `OperationQueue` has those of one topic; `OperationCall` is one attempt;
`OperationViews` tells callers of them, by the methods of `OperationControl`. Not here: the table
(`ostler.store.records.operation_records`) and the client's handle (`ostler.messaging.clients`).
"""

from ostler.operations.operation_control import OperationControl
from ostler.operations.operation_queue import DEFAULT_LIMITS, OperationLimits, OperationQueue
from ostler.operations.operations import Operations

__all__ = ["DEFAULT_LIMITS", "OperationControl", "OperationLimits", "OperationQueue", "Operations"]
