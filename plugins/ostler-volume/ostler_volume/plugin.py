"""The hooks of this plugin; they return import paths, so that importing it is cheap."""

from __future__ import annotations

from collections.abc import Mapping

from ostler import hookimpl

ostler_api = "1.0"


@hookimpl
def ostler_managers() -> Mapping[str, str]:
    """Return the manager of volumes."""
    return {"volume": "ostler_volume.manager:VolumeManager"}


@hookimpl
def ostler_drivers() -> Mapping[tuple[str, str], str]:
    """Return the driver that stores volumes as files in a directory."""
    return {("volume", "file"): "ostler_volume.file_driver:FileDriver"}


@hookimpl
def ostler_extensions() -> Mapping[tuple[str, str], str]:
    """Return the page of volumes, for the web page of a daemon that serves one."""
    return {("http.page", "volumes"): "ostler_volume.page:VolumePage"}


@hookimpl
def ostler_migrations() -> Mapping[str, str]:
    """Return the migrations of the tables."""
    return {"volume": "ostler_volume.migrations"}
