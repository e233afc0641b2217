"""Operations on volumes that are interrupted and resumed: by whom a name is taken, and what is not done again."""

# private: _context: what a placement needs of a manager

from __future__ import annotations

import msgspec
import pytest

from ostler import (
    Cancelled,
    ConnectionLost,
    Context,
    DaemonNotRunning,
    DriverNotReady,
    DriverState,
    NoCapacity,
)
from ostler_volume.api_types import SchedulerSelection, Volume
from ostler_volume.errors import AlreadyExists, VolumeNotFound
from ostler_volume.forwarding import forward_operation
from ostler_volume.placement import Choice, Placement, PlacementRequest

MIB = 2**20


class Operation:
    """An operation with recorded steps."""

    is_handed_over = False
    attempt = 1

    def __init__(self, *, is_resumed=False, **steps):
        self.steps = {name.replace("_", " "): msgspec.to_builtins(result) for name, result in steps.items()}
        self.is_resumed = is_resumed

    def is_recorded(self, name):
        return name in self.steps

    def step(self, context, name, function, result_type):
        if name not in self.steps:
            self.steps[name] = msgspec.to_builtins(function())
        return msgspec.convert(self.steps[name], result_type)


@pytest.fixture
def resumed():
    def make(**steps):
        context = Context("volume", "test", request_id="abc")
        context.operation = Operation(is_resumed=True, **steps)
        return context

    return make


def begun(name="a", **fields):
    return Volume(name=name, size=MIB, state="creating", backend="local", host="node1", created=1.0, **fields)


def test_a_creation_whose_record_was_taken_back_begins_anew(manager, resumed):
    made = manager.create_volume(resumed(begun=begun()), "a", "1MiB", backend="local")
    assert made.state == "available"
    assert manager.records.volume("a").created == 1.0
    assert manager.create_volume(resumed(begun=begun()), "a", "1MiB", backend="local").created == 1.0


def test_a_creation_does_not_take_another_volume_of_its_name_for_its_own(manager, resumed, ctx):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    with pytest.raises(AlreadyExists, match="another one now"):
        manager.create_volume(resumed(begun=begun()), "a", "1MiB", backend="local")
    assert manager.records.volume("a").state == "available"


def test_a_creation_that_had_ended_has_its_result_although_the_volume_is_gone(manager, resumed):
    ended = manager.create_volume(resumed(begun=begun(), done=begun()), "a", "1MiB", backend="local")
    assert ended.name == "a"
    assert manager.records.volumes() == []


def test_a_creation_waits_for_its_backend_after_a_restart(manager, resumed, ctx):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    own = manager.records.volume("a")
    manager.drivers.states["local"] = DriverState.INITIALISING
    context = resumed(begun=own)
    assert manager.create_volume(context, "a", "1MiB", backend="local").state == "available"
    with pytest.raises(DriverNotReady):
        manager.create_volume(resumed(begun=begun("b")), "b", "1MiB", backend="local")


def test_an_image_that_is_gone_does_not_fail_a_creation_that_had_copied_it(manager, resumed, ctx):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    own = manager.records.volume("a")
    made = manager.create_volume(resumed(begun=own), "a", "1MiB", backend="local", image="/gone")
    assert made.created == own.created


def test_a_deletion_leaves_another_volume_of_the_name_alone(manager, resumed, ctx):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    manager.delete_volume(resumed(begun=begun()), "a")
    assert manager.records.volume("a").state == "available"


def test_a_deletion_that_had_deleted_succeeds(manager, resumed, ctx):
    manager.delete_volume(resumed(begun=begun()), "a")
    with pytest.raises(VolumeNotFound):
        manager.delete_volume(ctx, "a")


def test_an_extension_is_done_once(manager, resumed, ctx, driver, monkeypatch):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    own = manager.records.volume("a")
    manager.extend_volume(ctx, "a", 2 * MIB)
    monkeypatch.setattr(driver, "extend", lambda *_: pytest.fail("extended again"))
    assert manager.extend_volume(resumed(begun=own), "a", 2 * MIB).size == 2 * MIB


# ---------------------------------------------------------------- placement


def selection(host="node1", backend="local"):
    return SchedulerSelection(host=host, backend=backend)


def placement(manager, answers):
    class Client:
        def on(self, **_):
            return self

        def call(self, topic, method, /, **arguments):
            return answers.pop(0)

    return Placement(manager._context, Client())


def refusal():
    return NoCapacity("full", undone=True)


def test_a_resumed_placement_keeps_its_choice(manager, resumed):
    context = resumed(chosen_1=Choice(selection()))
    found = placement(manager, []).place(
        context, "scheduler", PlacementRequest(MIB), lambda chosen, number: (chosen, number)
    )
    assert found == ((selection(), 1), "")


def test_a_resumed_placement_does_not_return_to_a_backend_that_had_refused(manager, resumed):
    context = resumed(
        chosen_1=Choice(selection("node2")), chosen_2=Choice(selection("node3"), "", {"node2/local": "full"})
    )
    made, note = placement(manager, []).place(
        context, "scheduler", PlacementRequest(MIB), lambda chosen, number: chosen.host
    )
    assert made == "node3"
    assert note == "node2/local was chosen before and refused: full"


def test_a_resumed_placement_that_is_refused_again_says_who_refused(manager, resumed):
    context = resumed(
        chosen_1=Choice(selection("node2")),
        chosen_2=Choice(selection("node3"), "", {"node2/local": "full"}),
        chosen_3=Choice(selection("node4"), "", {"node2/local": "full", "node3/local": "full"}),
    )

    def make(chosen, number):
        raise refusal()

    with pytest.raises(NoCapacity, match="full") as caught:
        placement(manager, []).place(context, "scheduler", PlacementRequest(MIB), make)
    assert "limit of attempts" in str(caught.value)


# ---------------------------------------------------------------- other hosts


class Remote:
    """A client whose `submit` ends with these results one after the other, the last one an operation."""

    def __init__(self, *outcomes):
        self.outcomes, self.submitted, self.cancelled = list(outcomes), [], 0

    def on(self, **options):
        self.options = options
        return self

    def submit(self, topic, method, /, **arguments):
        self.submitted.append((topic, method, arguments))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return self

    def watch(self, timeout=None):
        yield from self.outcomes.pop(0)()

    def result(self, timeout=None):
        return "made"

    def cancel(self):
        self.cancelled += 1


def forward(remote, context):
    return forward_operation(context, remote, "volume", "create_volume", {"name": "a"}, (0.0, 0.0))


def test_a_host_that_accepted_nothing_is_a_refusal(resumed):
    context = Context("volume", "test")
    context.operation = Operation()
    remote = Remote(DaemonNotRunning("away"))
    with pytest.raises(DaemonNotRunning):
        forward(remote, context)


@pytest.mark.parametrize("first", [ConnectionLost("lost"), None], ids=["lost", "resumed"])
def test_a_host_that_may_have_accepted_is_asked_until_it_is_back(resumed, first):
    context = Context("volume", "test")
    context.operation = Operation(is_resumed=first is None)
    remote = Remote(*filter(None, [first]), DaemonNotRunning("away"), "accepted", lambda: ())
    assert forward(remote, context) == "made"


def test_a_host_that_may_have_accepted_and_is_gone_is_no_refusal(resumed):
    remote = Remote(*[DaemonNotRunning("away")] * 3)
    with pytest.raises(ConnectionLost, match="may have been accepted"):
        forward(remote, resumed())


@pytest.mark.parametrize("is_handed_over", [False, True])
def test_the_remote_operation_is_cancelled_with_this_one_but_not_by_a_restart(resumed, is_handed_over):
    context = resumed()
    context.operation.is_handed_over = is_handed_over

    def cancelled():
        context.cancel()
        raise Cancelled("with its request")
        yield

    remote = Remote("accepted", cancelled)
    with pytest.raises(Cancelled):
        forward(remote, context)
    assert remote.cancelled == (0 if is_handed_over else 1)
