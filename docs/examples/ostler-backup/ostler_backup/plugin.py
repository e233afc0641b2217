"""The hooks of this plugin; they return import paths, so that importing it is cheap."""

from __future__ import annotations

from collections.abc import Mapping

from ostler import hookimpl

ostler_api = "1.0"


@hookimpl
def ostler_managers() -> Mapping[str, str]:
    """Return the managers by their registered names."""
    return {"backup": "ostler_backup.manager:BackupManager"}


@hookimpl
def ostler_drivers() -> Mapping[tuple[str, str], str]:
    """Return the drivers by manager and name."""
    return {
        ("backup", "directory"): "ostler_backup.directory:DirectoryDriver",
        ("backup", "native"): "ostler_backup.native:NativeDriver",
    }


@hookimpl
def ostler_migrations() -> Mapping[str, str]:
    """Return the migrations of the tables, whose names begin with `backup_`."""
    return {"backup": "ostler_backup.migrations"}
