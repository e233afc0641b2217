from __future__ import annotations

import pytest

from ostler_volume.api_types import Snapshot, Volume
from ostler_volume.driver import BackendObject, Inventory
from ostler_volume.reconcile_plan import plan_snapshot, plan_volume


def volume(state, fault="", size=100, **more):
    return Volume(name="a", size=size, state=state, backend="local", fault=fault, **more)


def there(size=100, device="", partial=False):
    devices = {"a": device} if device else {}
    return Inventory({"a": BackendObject(size, 0)}, {}, frozenset({"a"} if partial else ()), devices)


NOTHING = Inventory({}, {}, frozenset(), {})
PARTIAL = Inventory({}, {}, frozenset({"a"}), {})


@pytest.mark.parametrize(
    ("record", "inventory", "step", "state", "fault"),
    [
        (volume("creating"), NOTHING, "forget", "", ""),
        (volume("creating"), PARTIAL, "forget", "", ""),
        (volume("creating"), there(), "settle", "available", ""),
        (volume("creating"), there(size=7), "forget", "", ""),
        (volume("error", "creating"), NOTHING, "forget", "", ""),
        (volume("deleting"), there(), "delete", "", ""),
        (volume("deleting"), NOTHING, "delete", "", ""),
        (volume("error", "deleting"), there(), "delete", "", ""),
        (volume("available"), there(), "keep", "", ""),
        (volume("available"), NOTHING, "settle", "error", "missing"),
        (volume("available"), there(size=7), "settle", "error", "size"),
        (volume("available"), there(device="/dev/loop1"), "settle", "in-use", ""),
        (volume("extending"), there(size=200), "settle", "available", ""),
        (volume("extending"), NOTHING, "settle", "error", "missing"),
        (volume("error", "extending"), there(size=200), "settle", "available", ""),
        (volume("attaching"), there(), "settle", "available", ""),
        (volume("attaching"), there(device="/dev/loop1"), "settle", "in-use", ""),
        (volume("detaching"), there(), "settle", "available", ""),
        (volume("detaching"), there(device="/dev/loop1"), "settle", "in-use", ""),
        (volume("in-use", device="/dev/loop1"), there(device="/dev/loop1"), "keep", "", ""),
        (volume("in-use", device="/dev/loop1"), there(device="/dev/loop2"), "settle", "in-use", ""),
        (volume("in-use", device="/dev/loop1"), there(), "settle", "available", ""),
        (volume("in-use", device="/dev/loop1"), NOTHING, "settle", "error", "missing"),
        (volume("error", "missing"), NOTHING, "keep", "", ""),
        (volume("error", "missing"), there(), "settle", "available", ""),
        (volume("error", "missing"), there(size=7), "settle", "error", "size"),
        (volume("error", "size"), there(device="/dev/loop1"), "settle", "in-use", ""),
        (volume("error", "attaching"), there(), "settle", "available", ""),
    ],
)
def test_a_record_is_held_against_what_is_there(record, inventory, step, state, fault):
    judged = plan_volume(record, inventory)
    assert (judged.kind, judged.state, judged.fault) == (step, state, fault)


def test_the_size_of_an_extension_is_that_of_the_file():
    assert plan_volume(volume("extending", promised=300), there(size=200)).size == 200
    assert plan_volume(volume("extending", promised=300), there(size=100)).size == 100


def test_why_says_what_was_found():
    assert "is missing" in plan_volume(volume("available"), NOTHING).why
    assert plan_volume(volume("available"), there(size=7)).why == "the file of a has 7B instead of 100B"
    assert plan_volume(volume("attaching"), there(device="/dev/loop1")).device == "/dev/loop1"


@pytest.mark.parametrize(
    ("state", "fault", "size", "step", "to"),
    [
        ("creating", "", None, "forget", ""),
        ("creating", "", 100, "settle", "available"),
        ("error", "creating", None, "forget", ""),
        ("deleting", "", 100, "delete", ""),
        ("error", "deleting", None, "delete", ""),
        ("available", "", 100, "keep", ""),
        ("available", "", None, "settle", "error"),
        ("available", "", 7, "settle", "error"),
        ("error", "missing", None, "keep", ""),
        ("error", "missing", 100, "settle", "available"),
    ],
)
def test_a_snapshot_is_judged_the_same_way(state, fault, size, step, to):
    snapshot = Snapshot(volume="a", name="s", size=100, state=state, backend="local", fault=fault)
    inventory = NOTHING._replace(snapshots={} if size is None else {"a@s": BackendObject(size, 0)})
    judged = plan_snapshot(snapshot, inventory)
    assert (judged.kind, judged.state) == (step, to)
