"""Tasks, threads and queues that have a name and an owner.

`tasks` owns coroutines, `loop_queue` brings results from threads to the loop in batches, `worker_pool` is a bounded
pool of named daemon threads, `background_tasks` are those of managers, `undo_stack` takes down what was set up,
`round_robin`, `fair_queue` and `fair_quota` share time and space between accounts. Not here: anything that knows what
the work is about.
"""

from ostler.aio.loop_queue import LoopQueue
from ostler.aio.tasks import TaskOwner
from ostler.aio.undo_stack import UndoStack
from ostler.aio.worker_pool import RunningJob, Worker, WorkerPool, as_exception, waiting_for

__all__ = ["LoopQueue", "RunningJob", "TaskOwner", "UndoStack", "Worker", "WorkerPool", "as_exception", "waiting_for"]
