"""The page of volumes on the web page of the daemon: lists, creates, extends, snapshots and deletes them.

An extension of the kind `http.page`: it says what there is and which methods its buttons call. Whoever serves the page
lays it out, and offers what the role of the visitor allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from ostler_volume.volume_states import SnapshotState, VolumeState

_SNAPSHOT_HELP = "A volume can be deleted when it has no snapshots."
_SIZE_HELP = "Bytes, or text such as `10GiB`"


class VolumePage:
    """Volumes and snapshots of all hosts, and the space on the backends."""

    title = "Volumes"
    manager = "volume"
    actions: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "create": {
            "label": "Create a volume…",
            "method": "create_volume",
            "submit": True,
            "fields": {
                "name": {"label": "Name", "required": True},
                "size": {"label": "Size", "help": f"{_SIZE_HELP}; empty for the size of its origin"},
                "backend": {"label": "Backend", "help": "Empty: the scheduler chooses"},
                "source": {"label": "Copy of the volume", "help": "A volume on the same backend"},
                "snapshot": {"label": "Copy of the snapshot", "help": "`VOLUME@NAME`"},
                "image": {
                    "label": "From the image",
                    "help": "Path of a raw image in an image directory of the backend",
                },
            },
        },
        "extend": {
            "label": "Extend…",
            "method": "extend_volume",
            "submit": True,
            "question": "Extend {name}?",
            "fields": {"size": {"label": "New size", "required": True, "help": _SIZE_HELP}},
        },
        "snapshot": {
            "label": "Snapshot…",
            "method": "create_snapshot",
            "submit": True,
            "question": "Create a snapshot of {volume}?",
            "fields": {"name": {"label": "Name of the snapshot", "required": True}},
        },
        "delete": {
            "label": "Delete…",
            "method": "delete_volume",
            "question": "Delete the volume {name} on {on_host}? Its content is lost.",
            "done": "{name} was deleted",
            "danger": True,
        },
        "delete_snapshot": {
            "label": "Delete…",
            "method": "delete_snapshot",
            "question": "Delete the snapshot {name} of {volume} on {on_host}?",
            "done": "the snapshot {name} of {volume} was deleted",
            "danger": True,
        },
    }

    async def render(self, request: Mapping[str, Any], client: Any) -> dict[str, Any]:
        """Return what the page shows.

        Args:
            request: `topic`: the service of volumes; `host`: this host.
            client: Calls with the rights of the visitor.
        """
        topic, here = request["topic"], request["host"]
        volumes, snapshots, reports = await asyncio.gather(
            client.call(topic, "volume_listing", {}, timeout=10.0),
            client.call(topic, "snapshot_listing", {}, timeout=10.0),
            client.call("ostler", "capabilities", {}, timeout=10.0),
        )
        unreachable = {**volumes["unreachable"], **snapshots["unreachable"]}
        return {
            "actions": ["create"],
            "sections": [
                *(
                    {"text": f"{host} cannot be asked: {why}", "tone": "notice warn"}
                    for host, why in unreachable.items()
                ),
                {"table": _volumes_table(volumes["volumes"], here)},
                {
                    "title": "Snapshots",
                    "text": _SNAPSHOT_HELP if snapshots["snapshots"] else "",
                    "table": _snapshots_table(snapshots["snapshots"], here),
                },
                {"title": "Backends", "table": _backends_table(reports, topic)},
            ],
        }


def _volumes_table(volumes: list[dict[str, Any]], here: str) -> dict[str, Any]:
    table = {
        "columns": ["Volume", "Size", "State", "Backend", "Host", "Snapshots", "Created"],
        "rows": [_volume_row(volume) for volume in volumes],
        "empty": "There are no volumes.",
    }
    return _without_host(table, volumes, here)


def _without_host(table: dict[str, Any], listed: list[dict[str, Any]], here: str) -> dict[str, Any]:
    """Return a table without the column of hosts when all is on this one; it is wide enough without."""
    if any(one["host"] != here for one in listed):
        return table
    place = table["columns"].index("Host")
    del table["columns"][place]
    for row in table["rows"]:
        del row["cells"][place]
    return table


def _volume_row(volume: Mapping[str, Any]) -> dict[str, Any]:
    name, host = volume["name"], volume["host"]
    actions: list[list[Any]] = []
    if volume["state"] == VolumeState.AVAILABLE:
        actions += [
            ["extend", {"name": name, "on_host": host}],
            ["snapshot", {"volume": name, "on_host": host}],
        ]
    if volume["state"] in (VolumeState.AVAILABLE, VolumeState.ERROR) and not volume["snapshots"]:
        actions.append(["delete", {"name": name, "on_host": host}])
    return {
        "key": f"{name} on {host}",
        "cells": [
            name,
            {"kind": "size", "value": volume["size"]},
            {"kind": "state", "value": volume["state"], "why": volume["why"]},
            volume["backend"],
            host,
            str(volume["snapshots"]),
            {"kind": "time", "value": volume["created"]},
        ],
        "actions": actions,
    }


def _snapshots_table(snapshots: list[dict[str, Any]], here: str) -> dict[str, Any]:
    rows = []
    for snapshot in snapshots:
        arguments = {"volume": snapshot["volume"], "name": snapshot["name"], "on_host": snapshot["host"]}
        is_deletable = snapshot["state"] in (SnapshotState.AVAILABLE, SnapshotState.ERROR)
        rows.append(
            {
                "key": f"{snapshot['volume']}@{snapshot['name']} on {snapshot['host']}",
                "cells": [
                    f"{snapshot['volume']}@{snapshot['name']}",
                    {"kind": "size", "value": snapshot["size"]},
                    {"kind": "state", "value": snapshot["state"], "why": snapshot["why"]},
                    snapshot["host"],
                    {"kind": "time", "value": snapshot["created"]},
                ],
                "actions": [["delete_snapshot", arguments]] if is_deletable else [],
            }
        )
    table = {
        "columns": ["Snapshot", "Size", "State", "Host", "Created"],
        "rows": rows,
        "empty": "There are no snapshots.",
    }
    return _without_host(table, snapshots, here)


def _backends_table(reports: list[dict[str, Any]], topic: str) -> dict[str, Any]:
    rows = []
    for report in reports:
        if report["topic"] != topic:
            continue
        for name, facts in sorted(report["backends"].items()):
            rows.append({"key": f"{report['host']}/{name}", "cells": [name, report["host"], *_space(facts)]})
        for name, why in sorted(report["withheld"].items()):
            cells = [name, report["host"], {"kind": "state", "value": "not offered", "why": why}, "", ""]
            rows.append({"key": f"{report['host']}/{name}", "cells": cells})
    return {
        "columns": ["Backend", "Host", "Volumes", "Free", "File system used"],
        "rows": rows,
        "empty": "No backend offers space now.",
    }


def _space(facts: Mapping[str, Any]) -> list[Any]:
    total, free = facts["total_bytes"], facts["free_bytes"]
    used = {"kind": "share", "value": 1 - free / total, "label": "used"} if total else ""
    return [{"kind": "size", "value": facts["provisioned_bytes"]}, {"kind": "size", "value": free}, used]
