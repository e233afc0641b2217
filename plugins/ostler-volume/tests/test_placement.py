from __future__ import annotations

from types import SimpleNamespace

import pytest

from ostler import (
    Busy,
    ConnectionLost,
    Context,
    DaemonNotRunning,
    DeadlineExceeded,
    Draining,
    DriverError,
    DriverNotReady,
    DriverStuck,
    InternalError,
    InvalidInput,
    NoCapacity,
    NotPermitted,
    OstlerError,
    ServiceDisabled,
    ServiceNotFound,
)
from ostler.testing import FakeClock
from ostler_volume.api_types import SchedulerSelection, Volume
from ostler_volume.errors import AlreadyExists, BadImage
from ostler_volume.placement import PlacementRequest

# private: _placement: a request that the API does not let through
# private: _on_progress: the context is made by the fixture, before the test
# private: _context: room that goes between two steps of one request

GIB = 2**30


@pytest.fixture
def two(store, drivers, kit, tmp_path, client):
    """A manager with two backends, of which `big` may promise more."""
    drivers["big"] = kit.file_driver(tmp_path / "big", "big", oversubscription=3.0)
    yield kit.manager(store, drivers, client)
    drivers["big"].cleanup()


def test_the_scheduler_is_asked_and_followed(two, client, ctx):
    client.answers["scheduler", "select"] = SchedulerSelection(host="node1", backend="local")
    assert two.create_volume(ctx, "a", "1GiB").backend == "local"
    assert client.calls == [("scheduler", "select", None, {"topic": "volume", "size": GIB, "features": []})]


def test_for_an_image_the_backend_must_be_here_and_take_images(two, client, ctx, image):
    client.answers["scheduler", "select"] = SchedulerSelection(host="node1", backend="big")
    two.create_volume(ctx, "a", "1GiB", image=str(image))
    assert client.calls[0][3] == {"topic": "volume", "size": GIB, "features": ["image"], "on_host": "node1"}


def test_a_volume_for_another_host_is_passed_on(two, client, ctx, files):
    there = Volume(name="a", size=GIB, state="available", backend="far", host="node2")
    client.answers["scheduler", "select"] = SchedulerSelection(host="node2", backend="far", lease="l1")
    client.answers["volume", "create_volume"] = there
    assert two.create_volume(ctx, "a", "1GiB") == there
    assert client.calls[1][:3] == ("volume", "create_volume", "node2")
    wanted = {"name": "a", "size": GIB, "backend": "far", "by_choice": True, "lease": "l1", "on_host": "node2"}
    assert client.calls[1][3] == wanted
    assert two.records.volumes() == []


@pytest.mark.parametrize(
    "error",
    [
        ServiceNotFound("service 'scheduler' not found on node1"),
        DaemonNotRunning("node2 has been unreachable for 7s"),
        Busy("scheduler on node1 is starting"),
        Draining("scheduler is being stopped"),
        ServiceDisabled("scheduler on node1 is disabled: upgrade"),
        ConnectionLost("it died in the middle"),
        DeadlineExceeded("it hangs"),
    ],
)
def test_without_a_scheduler_the_backend_with_most_room_is_taken_and_that_is_told(two, client, ctx, error):
    client.answers["scheduler", "select"] = error
    made = two.create_volume(ctx, "a", "1GiB")
    assert made.backend == "big"
    assert error.message in made.note
    assert "the backend of node1 with the most space" in made.note
    assert two.records.volume("a").note == "", "it is said once, with the answer"


@pytest.mark.parametrize("error", [NotPermitted("no role"), InternalError("a filter broke"), InvalidInput("no topic")])
def test_what_a_scheduler_that_is_there_says_is_passed_on(two, client, ctx, error):
    client.answers["scheduler", "select"] = error
    with pytest.raises(type(error), match=error.message):
        two.create_volume(ctx, "a", "1GiB")


def test_a_deadline_that_passed_while_the_scheduler_was_waited_for_is_the_end(two, client):
    clock = FakeClock()
    ctx = Context("volume", "test", clock=clock, deadline=clock.monotonic() + 5)

    def select(host, arguments):
        clock.advance(6)
        return DeadlineExceeded("no answer from scheduler.select within 5s")

    client.answers["scheduler", "select"] = select
    with pytest.raises(DeadlineExceeded):
        two.create_volume(ctx, "a", "1GiB")
    assert two.records.volumes() == []


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
        two._placement.place(ctx, "", PlacementRequest(2**62, ("image",)), None)
    for words in ("big: does not offer image", "local: ", "can still be promised", "tape: the backend tape is failed"):
        assert words in caught.value.message


# ---------------------------------------------------------------- what was chosen may refuse


@pytest.fixture
def choices(client):
    """Have the scheduler choose these one after the other, then refuse; return what it was told."""

    def choose(*places):
        told, left = [], list(places)

        def select(host, arguments):
            told.append(dict(arguments.get("refused", {})))
            if not left:
                return NoCapacity("no backend of volume: of 2 candidates refused dropped 2")
            host, _, backend = left.pop(0).rpartition("/")
            return SchedulerSelection(host=host, backend=backend)

        client.answers["scheduler", "select"] = select
        return told

    return choose


def test_the_next_candidate_is_tried_when_the_first_refuses_and_that_is_told(two, drivers, client, ctx, choices):
    told = choices("node1/local", "node1/big")
    drivers.states["local"], drivers.whys["local"] = "stuck", "a call has outlived its budget"
    heard = []
    ctx._on_progress = heard.append
    made = two.create_volume(ctx, "a", "1GiB")
    assert made.backend == "big"
    assert "node1/local was chosen before and refused: the backend local is stuck" in made.note
    assert "local on node1 refused, trying another backend" in heard[0].text
    assert told == [{}, {"node1/local": "the backend local is stuck: a call has outlived its budget"}]


def test_room_that_is_gone_since_the_choice_is_a_refusal(two, ctx, choices):
    choices("node1/local", "node1/big")
    rooms = two._context.capacity
    limit_of = rooms.limit
    rooms.limit = lambda backend, driver: 0 if backend == "local" else limit_of(backend, driver)
    made = two.create_volume(ctx, "a", "1GiB")
    assert made.backend == "big"
    assert "node1/local" in made.note


@pytest.mark.parametrize("error", [DaemonNotRunning("away"), Draining("stopping"), Busy("full"),
ServiceNotFound("no host"),
                                   NotPermitted("no role"), ServiceDisabled("disabled: disk")])  # fmt: skip
def test_a_host_that_has_surely_not_begun_is_passed_over_with_all_its_backends(two, client, ctx, choices, error):
    told = choices("node2/far", "node1/big")
    client.answers["volume", "create_volume"] = error
    assert two.create_volume(ctx, "a", "1GiB").backend == "big"
    assert told[1] == {"node2": error.message}


def test_a_refusal_on_another_host_that_says_nothing_was_begun_is_passed_over(two, client, ctx, choices):
    choices("node2/far", "node1/big")
    client.answers["volume", "create_volume"] = NoCapacity("full", undone=True)
    assert "node2/far was chosen before and refused: full" in two.create_volume(ctx, "a", "1GiB").note


@pytest.mark.parametrize("error", [ConnectionLost("cut"), DeadlineExceeded("late"), DriverStuck("hangs"),
                                   InternalError("?"), NoCapacity("full, and it may be there")])  # fmt: skip
def test_nothing_is_tried_again_when_the_work_may_have_begun(two, client, ctx, choices, error):
    told = choices("node2/far", "node1/big")
    client.answers["volume", "create_volume"] = error
    with pytest.raises(type(error)):
        two.create_volume(ctx, "a", "1GiB")
    assert len(told) == 1


@pytest.mark.parametrize(
    ("error", "cleared", "backend"),
    [(NoCapacity("the disk is full"), True, "big"), (DriverError("read-only"), True, "big"), (OSError(5), True, ""),
     (NoCapacity("the disk is full"), False, "")],
)  # fmt: skip
def test_work_that_failed_is_done_elsewhere_only_when_nothing_is_left_of_it(
    two, drivers, ctx, choices, monkeypatch, error, cleared, backend
):
    choices("node1/local", "node1/big")

    def fail(*_):
        raise error

    monkeypatch.setattr(drivers["local"], "create", fail)
    if not cleared:
        monkeypatch.setattr(drivers["local"], "discard", fail)
    if backend:
        assert two.create_volume(ctx, "a", "1GiB").backend == backend
        return
    with pytest.raises(type(error)):
        two.create_volume(ctx, "a", "1GiB")
    assert [one.backend for one in two.records.volumes()] in ([], ["local"])


def test_no_more_are_tried_than_the_option_says(store, drivers, kit, client, ctx, choices):
    told = choices("n2/a", "n3/b", "n4/c", "n5/d")
    client.answers["volume", "create_volume"] = DaemonNotRunning("away")
    with pytest.raises(
        NoCapacity, match="2 chosen backends refused, the limit of attempts is reached: n2: away; n3: away"
    ):
        kit.manager(store, drivers, client, placement_attempts=2).create_volume(ctx, "a", "1GiB")
    assert len(told) == 2


def test_the_only_one_that_refuses_gives_its_own_error_and_that_no_other_would_do(two, drivers, ctx, choices):
    choices("node1/local")
    drivers.states["local"] = "failed"
    with pytest.raises(
        DriverNotReady, match=r"the backend local is failed; no other is suitable: no backend of volume"
    ):
        two.create_volume(ctx, "a", "1GiB")


def test_without_a_scheduler_too_the_next_best_is_tried(two, drivers, ctx, monkeypatch):
    def full(*_):
        raise NoCapacity("the disk is full")

    monkeypatch.setattr(drivers["big"], "create", full)
    made = two.create_volume(ctx, "a", "1GiB")
    assert made.backend == "local"
    assert "node1/big was chosen before and refused: the disk is full" in made.note


def test_a_driver_that_cannot_say_its_room_harms_its_own_backend_alone(two, drivers, ctx, choices, monkeypatch):
    def odd():
        raise ValueError("much")

    monkeypatch.setattr(drivers["local"], "room", odd)
    choices("node1/local", "node1/big")
    assert "cannot read the free space of backend local: ValueError: much" in two.create_volume(ctx, "a", "1GiB").note
    two.options = two.options.model_copy(update={"scheduler": ""})
    assert two.create_volume(ctx, "b", "1GiB").backend == "big"


def test_a_name_that_is_taken_is_no_reason_to_try_another_backend(two, drivers, ctx, choices):
    told = choices("node1/local", "node1/big")
    two.create_volume(ctx, "a", "1MiB", backend="big")
    with pytest.raises(AlreadyExists):
        two.create_volume(ctx, "a", "1MiB")
    assert told == []


# ---------------------------------------------------------------- disabled means disabled


def disabled(host, arguments):
    return SimpleNamespace(enabled=False, disabled_reason="the disk is failing", disabled_by="root")


def test_a_disabled_service_takes_nothing_by_choice_also_when_no_scheduler_is_asked(two, client, ctx):
    client.answers["ostler", "service_show"] = disabled
    for scheduler in ("", "scheduler"):
        two.options = two.options.model_copy(update={"scheduler": scheduler})
        with pytest.raises(ServiceDisabled, match=r"volume on node1 is disabled: the disk is failing \(by root\)"):
            two.create_volume(ctx, "a", "1GiB")
        with pytest.raises(ServiceDisabled):
            two.begin_upload(ctx, "a", 1024)
    assert two.create_volume(ctx, "a", "1MiB", backend="local").backend == "local", "whoever names one is obeyed"
    assert two.create_volume(ctx, "b", source="a").backend == "local"


def test_a_scheduler_that_has_not_heard_of_the_disabling_is_told_by_the_refusal(two, client, ctx, choices):
    told = choices("node1/local", "node2/far")
    client.answers["ostler", "service_show"] = disabled
    client.answers["volume", "create_volume"] = Volume(
        name="a", size=GIB, state="available", backend="far", host="node2"
    )
    assert two.create_volume(ctx, "a", "1GiB").host == "node2"
    assert list(told[1]) == ["node1"]
    with pytest.raises(ServiceDisabled):
        two.create_volume(ctx, "b", "1MiB", backend="local", on_host="node1", by_choice=True)


# ---------------------------------------------------------------- the size is known first


def test_a_scheduler_without_the_filter_for_hosts_gets_no_image_lost(two, client, ctx, image):
    client.answers["scheduler", "select"] = SchedulerSelection(host="node2", backend="far")
    with pytest.raises(NoCapacity, match=r"scheduler chose host node2 instead of node1"):
        two.create_volume(ctx, "a", image=str(image))


def test_the_size_of_an_image_is_measured_before_the_choice(two, client, ctx, image):
    with image.open("ab") as file:
        file.write(b"x")
    client.answers["scheduler", "select"] = SchedulerSelection(host="node1", backend="big")
    two.create_volume(ctx, "a", image=str(image))
    assert client.calls[0][3]["size"] == image.stat().st_size + 511
    two.begin_upload(ctx, "b", 1000)
    assert client.calls[1][3]["size"] == 1024


def test_a_backend_that_cannot_take_the_image_or_does_not_answer_is_excluded(
    two, drivers, client, ctx, image, tmp_path, monkeypatch
):
    drivers["big"].options.image_directories.clear()
    client.answers["scheduler", "select"] = SchedulerSelection(host="node1", backend="local")
    two.create_volume(ctx, "a", image=str(image))
    assert client.calls[0][3]["exclude"] == ["node1/big"]
    two.options = two.options.model_copy(update={"scheduler": ""})
    assert two.create_volume(ctx, "b", image=str(image)).backend == "local"
    with pytest.raises(BadImage, match="not in an image directory"):
        two.create_volume(ctx, "c", image="/etc/passwd")
    drivers["big"].options.image_directories.append(str(tmp_path))

    def stuck(*_):
        raise DriverStuck("big hangs")

    monkeypatch.setattr(drivers["big"], "open_image", stuck)
    assert two.create_volume(ctx, "d", image=str(image)).backend == "local"
    monkeypatch.setattr(drivers["local"], "open_image", stuck)
    with pytest.raises(DriverStuck):
        two.create_volume(ctx, "e", image=str(image))


# ---------------------------------------------------------------- leases


def leased(client, host="node1", backend="local"):
    def select(host_asked, arguments):
        if arguments.get("refused"):
            return NoCapacity("no other")
        return SchedulerSelection(host=host, backend=backend, lease="l1")

    client.answers["scheduler", "select"] = select


def test_the_lease_is_over_when_the_record_counts(two, client, ctx):
    leased(client)
    two.create_volume(ctx, "a", "1GiB")
    assert ("local", "l1", False) in client.changes
    assert ("", "l1", True) not in client.changes


def test_a_create_that_fails_gives_its_lease_back(two, client, ctx, drivers):
    leased(client)
    drivers.states["local"] = "failed"
    with pytest.raises(OstlerError):
        two.create_volume(ctx, "a", "1GiB")
    assert client.changes == [("", "l1", True), ("local", "", False)]
    del drivers.states["local"]

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


def test_a_lease_for_another_host_is_returned_only_if_nothing_can_have_begun_there(two, client, ctx):
    leased(client, "node2", "far")
    client.answers["volume", "create_volume"] = ConnectionLost("node2 went away")
    with pytest.raises(ConnectionLost):
        two.create_volume(ctx, "a", "1GiB")
    assert client.changes == []
    client.answers["volume", "create_volume"] = DaemonNotRunning("node2 cannot be reached")
    with pytest.raises(DaemonNotRunning):
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
