"""The page of volumes: what it shows, and that its buttons call methods which exist."""

from __future__ import annotations

import asyncio
import inspect

import msgspec
import pytest

from ostler_volume.api_types import Snapshot, SnapshotListing, Volume, VolumeListing
from ostler_volume.manager import VolumeManager
from ostler_volume.page import VolumePage
from ostler_volume.plugin import ostler_extensions

FACTS = {"total_bytes": 100, "free_bytes": 25, "provisioned_bytes": 60}


class FakeClient:
    """Answers as the service and the daemon do, with plain values."""

    def __init__(self, volumes=(), snapshots=(), reports=(), unreachable=None):
        gone = unreachable or {}
        self.answers = {
            "volume_listing": VolumeListing(volumes=list(volumes), unreachable=gone),
            "snapshot_listing": SnapshotListing(snapshots=list(snapshots), unreachable=gone),
            "capabilities": list(reports),
        }

    async def call(self, topic, method, arguments=None, **options):
        assert topic == ("ostler" if method == "capabilities" else "disks")
        return msgspec.to_builtins(self.answers[method])


def rendered(**given):
    return asyncio.run(
        VolumePage().render({"topic": "disks", "host": "node1", "role": "operator"}, FakeClient(**given))
    )


def table(page, number):
    return [section["table"] for section in page["sections"] if "table" in section][number]


def words(row):
    return [word for word, _ in row["actions"]]


@pytest.mark.parametrize(
    ("state", "snapshots", "expected"),
    [
        ("available", 0, ["extend", "snapshot", "delete"]),
        ("available", 2, ["extend", "snapshot"]),
        ("error", 0, ["delete"]),
        ("in-use", 0, []),
        ("creating", 0, []),
    ],
)
def test_a_volume_offers_what_its_state_allows(state, snapshots, expected):
    volume = Volume(name="a", size=5, state=state, backend="fast", host="node2", snapshots=snapshots)
    (row,) = table(rendered(volumes=[volume]), 0)["rows"]
    assert words(row) == expected
    assert all(arguments["on_host"] == "node2" for _, arguments in row["actions"])


def test_a_snapshot_is_deleted_on_its_host():
    snapshot = Snapshot(volume="a", name="before", size=5, state="available", backend="fast", host="node2")
    (row,) = table(rendered(snapshots=[snapshot]), 1)["rows"]
    assert row["actions"] == [["delete_snapshot", {"volume": "a", "name": "before", "on_host": "node2"}]]


def test_space_is_that_of_the_backends_of_the_service():
    report = {"topic": "disks", "host": "node1", "backends": {"fast": FACTS}, "withheld": {"slow": "it is full"}}
    other = {"topic": "lamps", "host": "node1", "backends": {"hall": {}}, "withheld": {}}
    fast, slow = table(rendered(reports=[report, other]), 2)["rows"]
    assert fast["cells"][4] == {"kind": "share", "value": 0.75, "label": "used"}
    assert slow["cells"][2]["why"] == "it is full"


def test_hosts_that_cannot_be_asked_are_named():
    page = rendered(unreachable={"node3": "no answer for 12 s"})
    assert "node3 cannot be asked: no answer for 12 s" in [section.get("text") for section in page["sections"]]


def test_every_action_calls_a_method_with_arguments_that_it_has():
    given = {"extend": {"name", "on_host"}, "snapshot": {"volume", "on_host"}, "delete": {"name", "on_host"},
             "delete_snapshot": {"volume", "name", "on_host"}, "create": set()}  # fmt: skip
    assert set(given) == set(VolumePage.actions)
    for name, action in VolumePage.actions.items():
        parameters = set(inspect.signature(getattr(VolumeManager, action["method"])).parameters)
        assert given[name] | set(action.get("fields", {})) <= parameters, name


def test_what_loses_data_asks_first():
    for name in ("delete", "delete_snapshot"):
        assert VolumePage.actions[name]["question"]
        assert VolumePage.actions[name]["danger"]


def test_the_page_is_found_by_its_import_path():
    assert ostler_extensions() == {("http.page", "volumes"): "ostler_volume.page:VolumePage"}


@pytest.mark.parametrize(("hosts", "expected"), [(["node1"], False), (["node1", "node2"], True), ([], False)])
def test_hosts_are_shown_where_there_are_several(hosts, expected):
    volumes = [Volume(name="a", size=5, state="available", backend="fast", host=host) for host in hosts]
    volumes_table = table(rendered(volumes=volumes), 0)
    assert ("Host" in volumes_table["columns"]) is expected
    assert all(len(row["cells"]) == len(volumes_table["columns"]) for row in volumes_table["rows"])
