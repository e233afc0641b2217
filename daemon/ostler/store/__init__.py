"""The database: opened, migrated, written by one thread with shared commits, read concurrently; and the core's records.

SQLite and peewee are used here and in the records of plugins, and nowhere else. Not here: anything that knows what a
service is beyond its row.
"""

from ostler.store.kv import KeyValue
from ostler.store.outage import Outage
from ostler.store.records.audit_records import AuditRecords
from ostler.store.records.capability_records import CapabilityRecords
from ostler.store.records.operation_records import (
    NewOperation,
    OperationOutcome,
    OperationRecord,
    OperationRecords,
    PendingOperation,
    Requester,
    requester_of,
)
from ostler.store.records.periodic_records import PeriodicRecords, PeriodicRun
from ostler.store.records.service_records import Registration, ServiceRecords, ServiceReport
from ostler.store.session import Database, Record
from ostler.store.sqlite_files.vacuum import VacuumResult
from ostler.store.statement import Statement, Written
from ostler.store.store import Callers, Store
from ostler.store.writer import CurrentJob

__all__ = [
    "AuditRecords",
    "Callers",
    "CapabilityRecords",
    "CurrentJob",
    "Database",
    "KeyValue",
    "NewOperation",
    "OperationOutcome",
    "OperationRecord",
    "OperationRecords",
    "Outage",
    "PendingOperation",
    "PeriodicRecords",
    "PeriodicRun",
    "Record",
    "Registration",
    "Requester",
    "ServiceRecords",
    "ServiceReport",
    "Statement",
    "Store",
    "VacuumResult",
    "Written",
    "requester_of",
]  # fmt: skip
