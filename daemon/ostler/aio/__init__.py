"""Tasks and threads that have a name and an owner.

`tasks` owns coroutines, `inbox` brings results from threads to the loop in batches, `pool` is a bounded pool of named
daemon threads. Nothing here knows what the work is about.
"""

from ostler.aio.inbox import Inbox
from ostler.aio.pool import Running, Worker, WorkerPool, contained, waiting_for
from ostler.aio.tasks import TaskOwner

__all__ = ["Inbox", "Running", "TaskOwner", "Worker", "WorkerPool", "contained", "waiting_for"]
