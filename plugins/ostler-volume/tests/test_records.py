from __future__ import annotations

import itertools
import threading

import pytest

from ostler import NoCapacity
from ostler.testing import FakeClock
from ostler_volume.argument_validation import Origin
from ostler_volume.errors import AlreadyExists, BadSize, HasSnapshots, SnapshotNotFound, VolumeNotFound, WrongState
from ostler_volume.reconcile_plan import RepairAction
from ostler_volume.records import Records
from ostler_volume.tables import AttachmentRow, SnapshotRow, VolumeRow
from ostler_volume.volume_states import SNAPSHOT_TRANSITIONS, VOLUME_TRANSITIONS, SnapshotState, VolumeState

V, S = VolumeState, SnapshotState
LIMIT = 1000


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def records(store, clock):
    return Records(store, "volume", "node1", clock.wall)


@pytest.fixture
def add(records):
    def make(name="a", size=100, state=V.AVAILABLE, **more):
        records.add_volume(name, more.pop("backend", "local"), size, more.pop("origin", Origin()), LIMIT)
        force(records, name, state)
        return records.volume(name)

    return make


def force(records, name, state):
    records.store.write(lambda: VolumeRow.update(state=state).where(VolumeRow.name == name).execute())


def test_a_volume_is_written_down_before_it_is_made(records, clock):
    volume = records.add_volume("a", "local", 100, Origin(image="/i"), LIMIT)
    assert (volume.state, volume.size, volume.promised, volume.source) == ("creating", 100, 100, "image:/i")
    assert (volume.host, volume.created, volume.since) == ("node1", clock.wall(), clock.wall())
    clock.advance(5)
    made = records.end_transition("a", V.AVAILABLE)
    assert (made.since, made.created) == (clock.wall(), clock.wall() - 5)
    assert records.volumes() == [made]


def test_a_name_is_taken_once_even_when_many_race_for_it(records):
    results, barrier = [], threading.Barrier(8)

    def race():
        barrier.wait()
        try:
            results.append(records.add_volume("a", "local", 10, Origin(), LIMIT).state)
        except AlreadyExists:
            results.append("refused")

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["creating"] + ["refused"] * 7


def test_room_is_promised_once_even_when_many_race_for_it(records):
    results, barrier = [], threading.Barrier(8)

    def race(number):
        barrier.wait()
        try:
            results.append(records.add_volume(f"v{number}", "local", 300, Origin(), LIMIT).state)
        except NoCapacity as error:
            results.append(error.details["left"])

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("creating") == 3
    assert results.count(100) == 5
    assert records.provisioned("local") == 900


@pytest.mark.parametrize(("before", "to"), list(itertools.product(V, V)))
def test_a_move_is_one_of_the_table_or_refused_by_the_names_of_both_states(records, add, before, to):
    add(state=before)
    if to in VOLUME_TRANSITIONS[before]:
        assert records.end_transition("a", to).state == to
    else:
        with pytest.raises(WrongState, match=f"is {before}") as caught:
            records.end_transition("a", to)
        assert caught.value.details["state"] == before
        assert records.volume("a").state == before


@pytest.mark.parametrize(("before", "to"), list(itertools.product(S, S)))
def test_a_snapshot_moves_by_its_table_as_well(records, add, before, to):
    add()
    records.add_snapshot("a", "s", LIMIT)
    records.store.write(lambda: SnapshotRow.update(state=before).execute())
    if to in SNAPSHOT_TRANSITIONS[before]:
        assert records.move_snapshot("a", "s", to).state == to
    else:
        with pytest.raises(WrongState, match=f"is {before}"):
            records.move_snapshot("a", "s", to)


@pytest.mark.parametrize(
    ("state", "to", "words"),
    [
        (V.IN_USE, V.DELETING, ["is in-use", "cannot be deleted", "detach it first"]),
        (V.IN_USE, V.ATTACHING, ["is in-use", "cannot be attached"]),
        (V.AVAILABLE, V.DETACHING, ["is available", "cannot be detached", "not attached"]),
        (V.CREATING, V.EXTENDING, ["is creating", "cannot be extended", "wait"]),
        (V.ERROR, V.ATTACHING, ["is error", "cannot be attached"]),
    ],
)
def test_a_refusal_says_state_and_advice(records, add, state, to, words):
    add(state=state)
    with pytest.raises(WrongState) as caught:
        records.begin_transition("a", to)
    for word in words:
        assert word in str(caught.value)


def test_what_is_being_copied_does_not_change(records, add):
    add("gold")
    add("copy", origin=Origin(source="gold"), state=V.CREATING)
    for to in (V.ATTACHING, V.EXTENDING, V.DELETING):
        with pytest.raises(WrongState, match="being copied to copy"):
            records.begin_transition("gold", to, size=200, limit=LIMIT)
    records.end_transition("copy", V.AVAILABLE)
    records.begin_transition("gold", V.ATTACHING)


def test_what_is_being_kept_as_a_snapshot_does_not_change(records, add):
    add()
    records.add_snapshot("a", "s", LIMIT)
    with pytest.raises(WrongState, match="being copied to snapshot s"):
        records.begin_transition("a", V.ATTACHING)
    records.move_snapshot("a", "s", S.AVAILABLE)
    with pytest.raises(HasSnapshots, match="has 1 snapshot,"):
        records.begin_transition("a", V.DELETING)
    records.delete_snapshot("a", "s")
    records.begin_transition("a", V.DELETING)


def test_a_snapshot_that_is_being_copied_is_not_deleted(records, add):
    add("gold")
    records.add_snapshot("gold", "s", LIMIT)
    with pytest.raises(WrongState, match="snapshot gold@s is creating"):
        records.add_volume("copy", "local", 100, Origin(snapshot="gold@s"), LIMIT)
    records.move_snapshot("gold", "s", S.AVAILABLE)
    records.add_volume("copy", "local", 100, Origin(snapshot="gold@s"), LIMIT)
    with pytest.raises(WrongState, match="being copied to copy"):
        records.move_snapshot("gold", "s", S.DELETING)


@pytest.mark.parametrize("state", sorted(set(V) - {V.AVAILABLE}))
def test_only_an_available_volume_is_copied_or_kept(records, add, state):
    add(state=state)
    with pytest.raises(WrongState, match=f"is {state}"):
        records.add_volume("b", "local", 100, Origin(source="a"), LIMIT)
    with pytest.raises(WrongState, match=f"is {state}"):
        records.add_snapshot("a", "s", LIMIT)
    assert [one.name for one in records.volumes()] == ["a"]


def test_extending_promises_the_new_size_at_once_and_gives_back_what_was_not_done(records, add):
    add(size=100)
    with pytest.raises(NoCapacity):
        records.begin_transition("a", V.EXTENDING, size=1001, limit=LIMIT)
    with pytest.raises(BadSize, match="is not larger"):
        records.begin_transition("a", V.EXTENDING, size=100, limit=LIMIT)
    records.begin_transition("a", V.EXTENDING, size=700, limit=LIMIT)
    assert records.provisioned("local") == 700
    assert records.end_transition("a", V.AVAILABLE, size=100).promised == 100
    assert records.provisioned("local") == 100


def test_snapshots_are_promised_their_whole_size(records, add):
    add(size=400)
    records.add_snapshot("a", "s", LIMIT)
    assert records.provisioned("local") == 800
    with pytest.raises(NoCapacity):
        records.add_snapshot("a", "t", LIMIT)


def test_a_device_is_there_while_the_volume_is_in_use(records, add):
    add()
    records.begin_transition("a", V.ATTACHING)
    assert records.end_transition("a", V.IN_USE, device="/dev/loop7").device == "/dev/loop7"
    assert records.begin_transition("a", V.DETACHING).device == "/dev/loop7"
    assert records.end_transition("a", V.AVAILABLE).device == ""


def test_removing_a_volume_removes_its_attachment(records, add):
    add()
    records.end_transition("a", V.IN_USE, device="/dev/loop7")
    records.delete_volume("a")
    records.delete_volume("a")
    assert records.volumes() == []
    assert records.store.read(lambda: AttachmentRow.select().count()) == 0


def test_lists_can_be_narrowed(records, add):
    add("b")
    add("a", backend="other")
    records.add_snapshot("b", "s", LIMIT)
    assert [one.name for one in records.volumes()] == ["a", "b"]
    assert [one.name for one in records.volumes("other")] == ["a"]
    assert [(one.volume, one.name, one.backend) for one in records.snapshots()] == [("b", "s", "local")]
    assert records.snapshots("a") == records.snapshots(backend="other") == []
    assert [one.snapshots for one in records.volumes()] == [0, 1]


def test_what_is_not_there_is_said_by_name(records, add):
    add()
    for ask in (
        lambda: records.volume("b"),
        lambda: records.snapshot("b", "s"),
        lambda: records.begin_transition("b", V.DELETING),
        lambda: records.add_snapshot("b", "s", LIMIT),
        lambda: records.add_volume("c", "local", 1, Origin(source="b"), LIMIT),
    ):
        with pytest.raises(VolumeNotFound, match="volume b not found"):
            ask()
    for ask in (
        lambda: records.snapshot("a", "s"),
        lambda: records.move_snapshot("a", "s", S.DELETING),
        lambda: records.add_volume("c", "local", 1, Origin(snapshot="a@s"), LIMIT),
    ):
        with pytest.raises(SnapshotNotFound, match="snapshot a@s not found"):
            ask()
    records.delete_snapshot("a", "s")


def test_two_services_do_not_see_each_others_volumes(store, records, add, clock):
    add()
    other = Records(store, "archive", "node1", clock.wall)
    other.add_volume("a", "local", 1, Origin(), LIMIT)
    assert (records.volume("a").size, other.volume("a").size) == (100, 1)
    assert other.provisioned("local") == 1
    other.delete_volume("a")
    assert records.volume("a").size == 100


def test_the_tables_are_what_the_migrations_made(store):
    def columns(model):
        return {row.name for row in model._meta.database.get_columns(model._meta.table_name)}

    def check():
        for model in (VolumeRow, SnapshotRow, AttachmentRow):
            assert columns(model) == {field.column_name for field in model._meta.sorted_fields}

    store.read(check)


def test_many_are_set_at_once_and_all_or_none_of_them(records, add):
    for name in ("a", "b", "c"):
        add(name, state=V.IN_USE)
    found = {name: RepairAction("settle", V.AVAILABLE) for name in ("a", "b")}
    found["c"] = RepairAction("settle", V.IN_USE, device="/dev/loop3", size=200)
    records.end_transitions(found)
    volumes = records.volumes()
    assert [(one.state, one.device, one.size) for one in volumes] == [
        ("available", "", 100), ("available", "", 100), ("in-use", "/dev/loop3", 200)
    ]  # fmt: skip
    records.end_transitions({"c": RepairAction("settle", V.AVAILABLE)})
    assert records.volume("c").device == ""
    force(records, "b", V.CREATING)
    with pytest.raises(WrongState, match="volume b is creating"):
        records.end_transitions({name: RepairAction("settle", V.IN_USE) for name in ("a", "b")})
    assert records.volume("a").state == "available"
    with pytest.raises(VolumeNotFound):
        records.end_transitions({name: RepairAction("settle", V.IN_USE) for name in ("a", "z")})
    assert records.volume("a").state == "available"
