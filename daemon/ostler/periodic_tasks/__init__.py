"""Periodic tasks: `decorator` marks methods, `scheduler` runs those of all services on one heap and one timer.

Here: when a task is due (intervals, cron, spacing), its run on the loop or a thread, its state. Not here: what a task
does, and what is stored of its runs (`ostler.store.records`).
"""

from ostler.periodic_tasks.decorator import PeriodicSettings, periodic, periodic_settings
from ostler.periodic_tasks.scheduler import PeriodicScheduler

__all__ = ["PeriodicScheduler", "PeriodicSettings", "periodic", "periodic_settings"]
