"""The database: opened, migrated, written by one thread with shared commits, read beside it; and the core's records.

SQLite and peewee are known here, in the records of plugins, and nowhere else. Nothing here knows what a service is
beyond its row.
"""

from ostler.store.audit import AuditRecords
from ostler.store.capabilities import CapabilityRecords
from ostler.store.current import Database, Record
from ostler.store.kv import KeyValue
from ostler.store.outage import Outage
from ostler.store.periodic_runs import PeriodicRecords, PeriodicRun
from ostler.store.services import Registration, Report, ServiceRecords
from ostler.store.store import Store
from ostler.store.writer import Working

__all__ = [
    "AuditRecords", "CapabilityRecords", "Database", "KeyValue", "Outage", "PeriodicRecords", "PeriodicRun", "Record",
    "Registration", "Report", "ServiceRecords", "Store", "Working",
]  # fmt: skip
