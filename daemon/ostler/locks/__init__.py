"""Locks by name, for managers: who holds one can be asked for, and a deadlock is an error at once.

`lock_table.py` decides who holds what on this host, `locks.py` is what managers use, `cluster_locks.py` has the locks
that daemons with one database share, and `host_locks.py` has all of them. A lock of one host needs no database.
"""

from __future__ import annotations

from ostler.locks.host_locks import HostLocks
from ostler.locks.lock_table import LockTable
from ostler.locks.locks import LockHold, Locks

__all__ = ["HostLocks", "LockHold", "LockTable", "Locks"]
