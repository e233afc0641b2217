"""The tables of the core. They are created by `migrations/`, which are never changed afterwards."""

from __future__ import annotations

import peewee

from ostler.store.session import Record


class ServiceRow(Record):
    """One service: its own report, the time of that (by three clocks and a number), and the operator overrides.

    An override whose `…_at` is 0 is not set.
    """

    id = peewee.AutoField()
    topic = peewee.TextField()
    host = peewee.TextField()
    manager = peewee.TextField()
    rpc_version = peewee.TextField()
    state = peewee.TextField()
    why = peewee.TextField(default="")
    since = peewee.FloatField()
    beat = peewee.IntegerField(default=1)
    boot_id = peewee.TextField()
    boot_time = peewee.FloatField()
    reported_at = peewee.FloatField()
    enabled = peewee.BooleanField(default=True)
    disabled_reason = peewee.TextField(default="")
    disabled_by = peewee.TextField(default="")
    enabled_at = peewee.FloatField(default=0.0)
    namespaces = peewee.TextField(default="")
    frozen_at = peewee.FloatField(default=0.0)
    frozen_by = peewee.TextField(default="")
    frozen_reason = peewee.TextField(default="")
    forced_down_at = peewee.FloatField(default=0.0)
    forced_down_by = peewee.TextField(default="")
    forced_down_reason = peewee.TextField(default="")
    signs = peewee.TextField(default="")

    class Meta:
        """Where the table is."""

        table_name = "services"


class CapabilityRow(Record):
    """The last capabilities of a service; `number` grows with each report, `sequence` with those of one instance."""

    topic = peewee.TextField()
    host = peewee.TextField()
    backends = peewee.TextField()
    number = peewee.IntegerField(default=1)
    boot_id = peewee.TextField()
    boot_time = peewee.FloatField()
    reported_at = peewee.FloatField()
    instance = peewee.TextField(default="")
    sequence = peewee.IntegerField(default=0)
    details = peewee.TextField(default="{}")

    class Meta:
        """Where the table is."""

        table_name = "capabilities"
        primary_key = peewee.CompositeKey("topic", "host")


class PeriodicRow(Record):
    """The record of one periodic task's runs."""

    host = peewee.TextField()
    service = peewee.TextField()
    task = peewee.TextField()
    runs = peewee.IntegerField()
    errors = peewee.IntegerField()
    last_run = peewee.FloatField()
    last_seconds = peewee.FloatField()
    last_error = peewee.TextField()
    last_due = peewee.FloatField(default=0.0)
    paused_at = peewee.FloatField(default=0.0)
    paused_by = peewee.TextField(default="")
    pause_reason = peewee.TextField(default="")

    class Meta:
        """Where the table is."""

        table_name = "periodic_runs"
        primary_key = peewee.CompositeKey("host", "service", "task")


class PeriodicHistoryRow(Record):
    """The last runs of one periodic task, as JSON."""

    host = peewee.TextField()
    service = peewee.TextField()
    task = peewee.TextField()
    runs = peewee.TextField()

    class Meta:
        """Where the table is."""

        table_name = "periodic_history"
        primary_key = peewee.CompositeKey("host", "service", "task")


class KeyValueRow(Record):
    """One JSON value under a key of a namespace."""

    namespace = peewee.TextField()
    key = peewee.TextField()
    value = peewee.TextField()

    class Meta:
        """Where the table is."""

        table_name = "key_value"
        primary_key = peewee.CompositeKey("namespace", "key")
