from __future__ import annotations

import pytest

from ostler import Draining, NoCapacity
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
    client.answers["scheduler", "select"] = Selection(host="node2", backend="far")
    client.answers["volume", "create_volume"] = there
    assert two.create_volume(ctx, "a", "1GiB") == there
    assert client.calls[1][:3] == ("volume", "create_volume", "node2")
    assert client.calls[1][3] == {"name": "a", "size": GIB, "backend": "far", "image": ""}
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
