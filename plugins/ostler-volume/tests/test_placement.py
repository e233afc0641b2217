from __future__ import annotations

import pytest

from ostler import ConnectionLost, Draining, NoCapacity, NotRunning, OstlerError
from ostler_volume.wire import Selection, Volume

GIB = 2**30


@pytest.fixture
def two(store, drivers, kit, tmp_path, client):
    """A manager with two backends, of which `big` may promise more."""
    drivers["big"] = kit.file_driver(tmp_path / "big", "big", oversubscription=3.0)
    yield kit.manager(store, drivers, client)
    drivers["big"].cleanup()


def test_the_scheduler_is_asked_and_followed(two, client, ctx):
    client.answers["scheduler", "select"] = Selection(host="node1", backend="local")
    assert two.create_volume(ctx, "a", "1GiB").backend == "local"
    assert client.calls == [("scheduler", "select", None, {"topic": "volume", "size": GIB, "features": []})]


def test_for_an_image_the_backend_must_be_here_and_take_images(two, client, ctx, image):
    client.answers["scheduler", "select"] = Selection(host="node1", backend="big")
    two.create_volume(ctx, "a", "1GiB", image=str(image))
    assert client.calls[0][3] == {"topic": "volume", "size": GIB, "features": ["image"], "on_host": "node1"}


def test_a_volume_for_another_host_is_passed_on(two, client, ctx, files):
    there = Volume(name="a", size=GIB, state="available", backend="far", host="node2")
    client.answers["scheduler", "select"] = Selection(host="node2", backend="far", lease="l1")
    client.answers["volume", "create_volume"] = there
    assert two.create_volume(ctx, "a", "1GiB") == there
    assert client.calls[1][:3] == ("volume", "create_volume", "node2")
    assert client.calls[1][3] == {"name": "a", "size": GIB, "backend": "far", "image": "", "lease": "l1"}
    assert two.records.volumes() == []


@pytest.mark.parametrize("error", [None, Draining("scheduler is being stopped")])
def test_without_a_scheduler_the_backend_with_most_room_is_taken(two, client, ctx, error):
    if error:
        client.answers["scheduler", "select"] = error
    assert two.create_volume(ctx, "a", "1GiB").backend == "big"


def test_the_scheduler_can_be_switched_off(store, drivers, kit, ctx, client):
    kit.manager(store, drivers, client, scheduler="").create_volume(ctx, "a", "1MiB")
    assert client.calls == []


def test_a_refusal_of_the_scheduler_is_passed_on(two, client, ctx):
    client.answers["scheduler", "select"] = NoCapacity("no candidate is left")
    with pytest.raises(NoCapacity, match="no candidate"):
        two.create_volume(ctx, "a", "1GiB")


def test_a_copy_goes_where_its_source_is(two, client, ctx):
    two.create_volume(ctx, "a", "1MiB", backend="local")
    assert two.create_volume(ctx, "b", source="a").backend == "local"
    assert client.calls == []


def test_every_backend_is_named_with_why_it_does_not_do(two, drivers, ctx):
    drivers["tape"] = drivers["local"]
    drivers.states["tape"] = "failed"
    drivers["big"].features = frozenset()
    with pytest.raises(NoCapacity) as caught:
        two._placement.choose("", 2**62, ["image"], here=False)
    for words in ("big: does not offer image", "local: ", "can still be promised", "tape: the backend tape is failed"):
        assert words in caught.value.message


def leased(client, host="node1", backend="local"):
    client.answers["scheduler", "select"] = Selection(host=host, backend=backend, lease="l1")


def test_the_lease_is_over_when_the_record_counts(two, client, ctx):
    leased(client)
    two.create_volume(ctx, "a", "1GiB")
    assert ("local", "l1", False) in client.changes
    assert ("", "l1", True) not in client.changes


def test_a_create_that_fails_gives_its_lease_back(two, client, ctx, drivers):
    leased(client)
    with pytest.raises(OstlerError):
        two.create_volume(ctx, "a", "1GiB", image="/no/such/image")
    assert client.changes == [("", "l1", True), ("local", "", False)]

    def full(*_):
        raise NoCapacity("the disk is full after all")

    drivers["local"].create = full
    with pytest.raises(NoCapacity, match="after all"):
        two.create_volume(ctx, "a", "1GiB")
    assert client.changes[-2:] == [("", "l1", True), ("local", "", False)]
    assert two.records.volumes() == []


def test_an_upload_that_cannot_begin_gives_its_lease_back(two, client, ctx, drivers):
    leased(client)
    drivers["local"].begin_upload = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        two.begin_upload(ctx, "a", 512)
    assert ("", "l1", True) in client.changes


def test_a_lease_for_another_host_is_given_back_only_when_nothing_can_have_begun_there(two, client, ctx):
    leased(client, "node2", "far")
    client.answers["volume", "create_volume"] = ConnectionLost("node2 went away")
    with pytest.raises(ConnectionLost):
        two.create_volume(ctx, "a", "1GiB")
    assert client.changes == []
    client.answers["volume", "create_volume"] = NotRunning("node2 cannot be reached")
    with pytest.raises(NotRunning):
        two.create_volume(ctx, "a", "1GiB")
    assert client.changes == [("", "l1", True)]


def test_every_change_of_what_is_promised_is_told(two, client, ctx):
    def told_of(work):
        del client.changes[:]
        work()
        return set(client.changes)

    here = {("local", "", False)}
    assert told_of(lambda: two.create_volume(ctx, "a", "1MiB", backend="local")) == here
    assert told_of(lambda: two.create_volume(ctx, "copy", source="a")) == here
    assert told_of(lambda: two.create_snapshot(ctx, "a", "s")) == here
    assert told_of(lambda: two.delete_snapshot(ctx, "a", "s")) == here
    assert told_of(lambda: two.extend_volume(ctx, "a", "2MiB")) == here
    assert told_of(lambda: two.delete_volume(ctx, "a")) == here
