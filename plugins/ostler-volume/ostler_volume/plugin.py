"""What this plugin brings; it names import paths only, so that importing it is cheap."""

from __future__ import annotations

from collections.abc import Mapping

from ostler import hookimpl

ostler_api = "1.0"


@hookimpl
def ostler_managers() -> Mapping[str, str]:
    """Bring the manager of volumes."""
    return {"volume": "ostler_volume.manager:VolumeManager"}


@hookimpl
def ostler_drivers() -> Mapping[tuple[str, str], str]:
    """Bring the driver that keeps volumes as files in a folder."""
    return {("volume", "file"): "ostler_volume.file_driver:FileDriver"}


@hookimpl
def ostler_migrations() -> Mapping[str, str]:
    """Bring the tables."""
    return {"volume": "ostler_volume.migrations"}
