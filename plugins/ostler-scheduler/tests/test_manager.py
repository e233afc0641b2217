from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import Counter
from types import SimpleNamespace

import msgspec
import pytest

from ostler import (
    Busy,
    CapabilityReport,
    ConfigurationError,
    Context,
    DaemonNotRunning,
    InvalidInput,
    NoCapacity,
    NotPermitted,
    ServiceDisabled,
)
from ostler.types import Peer
from ostler_scheduler import Filter, Weigher
from ostler_scheduler.api_types import Explanation, Selection

GIB = 2**30


class QuietFilter(Filter):
    def why_not(self, candidate, request):
        return "it is busy" if (candidate.number("load") or 0) > 0.8 else ""


class NearWeigher(Weigher):
    def weigh(self, candidate, request):
        return -candidate.facts["metres"]


class HangingFilter(Filter):
    entered = threading.Event()
    release = threading.Event()

    def why_not(self, candidate, request):
        self.entered.set()
        self.release.wait()
        return ""


STRANGER = SimpleNamespace(
    ostler_extensions=lambda: {
        ("scheduler.filter", "quiet"): QuietFilter,
        ("scheduler.filter", "hangs"): HangingFilter,
        ("scheduler.weigher", "near"): NearWeigher,
    }
)


def gib(free, **more):
    return {"free_bytes": free * GIB, "features": ["snapshot"], **more}


@pytest.fixture
def ctx(clock):
    return Context("scheduler", "test", clock=clock)


NUMBERS = itertools.count(1)


def deliver(manager, ctx, **more):
    """Send a report, as a daemon does."""
    fields = {"topic": "volume", "instance": "run1", "sequence": next(NUMBERS), "reported_at": 1.0, **more}
    asyncio.run(manager.update_capabilities(ctx, CapabilityReport(**fields)))


def same(**more):
    """Return what the daemon keeps of the report that was sent last."""
    fields = {"topic": "volume", "host": "node1", "instance": "run1", "sequence": 0, "reported_at": 1.0, **more}
    return CapabilityReport(**fields)


@pytest.fixture
def report(ctx):
    def send(manager, host="node1", *, topic="volume", enabled=True, **backends):
        deliver(manager, ctx, topic=topic, host=host, backends=backends, enabled=enabled)

    return send


def test_a_reported_backend_can_be_selected(make_manager, ctx, report):
    manager = make_manager()
    report(manager, fast=gib(100), slow=gib(50))
    chosen = manager.select(ctx, "volume", "10GiB")
    why = "the best of 2 candidates left (free_space 1.00)"
    assert chosen == Selection(host="node1", backend="fast", why=why, lease=chosen.lease)
    assert chosen.lease


def test_a_hundred_requests_in_a_second_do_not_all_land_on_one_backend(make_manager, ctx, report):
    manager = make_manager()
    for host in ("node1", "node2", "node3", "node4"):
        report(manager, host, disk=gib(1000))
    wins = Counter(manager.select(ctx, "volume", GIB).host for _ in range(100))
    assert wins == {"node1": 25, "node2": 25, "node3": 25, "node4": 25}


def test_room_that_was_promised_is_not_given_away_again_until_its_lease_is_over(make_manager, ctx, report):
    manager = make_manager()
    report(manager, disk=gib(15))
    lease = manager.select(ctx, "volume", 10 * GIB).lease
    report(manager, disk=gib(15))
    with pytest.raises(NoCapacity, match="capacity dropped 1"):
        manager.select(ctx, "volume", 10 * GIB)
    deliver(manager, ctx, host="node1", backends={"disk": gib(15)}, leases={lease: True})
    manager.select(ctx, "volume", 10 * GIB)


def test_a_program_gives_back_what_it_did_not_take(make_manager, ctx, report):
    manager = make_manager()
    report(manager, disk=gib(15))
    lease = manager.select(ctx, "volume", 10 * GIB).lease
    assert manager.release(ctx, lease)
    assert not manager.release(ctx, lease)
    manager.select(ctx, "volume", 10 * GIB)


def test_a_lease_of_which_nothing_is_heard_ends_after_lease_timeout(make_manager, ctx, clock, report):
    manager = make_manager(lease_timeout="20s")
    report(manager, disk=gib(15))
    manager.select(ctx, "volume", 10 * GIB)
    clock.advance(19)
    with pytest.raises(NoCapacity):
        manager.select(ctx, "volume", 10 * GIB)
    clock.advance(1)
    manager.select(ctx, "volume", 10 * GIB)


def test_before_a_refusal_the_daemon_reports_what_has_changed_a_moment_ago(make_manager, ctx, client, report):
    manager = make_manager()
    report(manager, disk=gib(1))
    client.flushed = [same(sequence=next(NUMBERS), backends={"disk": gib(15)})]
    assert manager.select(ctx, "volume", 10 * GIB).backend == "disk"
    assert client.flushes == 1


@pytest.mark.failure_mode("State", "room that is counted or promised twice")
def test_room_on_one_file_system_is_not_given_away_on_two_of_its_backends(make_manager, ctx, report):
    manager = make_manager()
    facts = {**gib(15), "filesystem": "8:1"}
    report(manager, gold=facts, silver=facts)
    report(manager, "node2", other=gib(1) | {"filesystem": "8:1"})
    manager.select(ctx, "volume", 10 * GIB)
    with pytest.raises(NoCapacity, match="capacity dropped 3"):
        manager.select(ctx, "volume", 10 * GIB)
    reasons = [one.reason for one in manager.explain(ctx, "volume", 10 * GIB).candidates]
    assert any("10GiB promised since on other backends of its file system" in reason for reason in reasons)
    assert [one.neighbours for one in manager.candidates(ctx) if one.host == "node2"] == [0]
    assert manager.select(ctx, "volume", GIB).host


def test_many_threads_are_never_promised_the_same_room(make_manager, ctx, report):
    manager = make_manager()
    report(manager, disk=gib(20), other=gib(20))
    start, given, refused = threading.Barrier(8), [], []

    def ask():
        start.wait()
        for _ in range(10):
            try:
                given.append(manager.select(ctx, "volume", GIB))
            except NoCapacity as error:
                refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(given), len(refused)) == (40, 40)


def test_explain_shows_every_candidate_and_gives_nothing_away(make_manager, ctx, report):
    manager = make_manager()
    report(manager, fast=gib(100), small=gib(2))
    report(manager, "node2", fast=gib(90), enabled=False)
    for _ in range(20):
        said = manager.explain(ctx, "volume", "10GiB", features=("snapshot",))
    assert [(one.host, one.backend, one.dropped_by, one.chosen) for one in said.candidates] == [
        ("node1", "fast", "", True),
        ("node1", "small", "capacity", False),
        ("node2", "fast", "enabled", False),
    ]
    assert (said.why, said.size) == ("the only one left of 3 candidates", 10 * GIB)
    assert manager.candidates(ctx)[0].promised == 0


def test_explain_says_why_nothing_is_left_instead_of_failing(make_manager, ctx, report):
    manager = make_manager()
    assert "no service on this topic has reported" in manager.explain(ctx, "volume").why
    report(manager, small=gib(2))
    assert "of 1 candidate capacity dropped 1" in manager.explain(ctx, "volume", "10GiB").why
    report(manager)
    assert "node1 reported, but no driver is ready" in manager.explain(ctx, "volume").why


def test_what_is_said_goes_over_the_wire_and_back(make_manager, ctx, report):
    manager = make_manager()
    report(manager, fast=gib(100), small=gib(2))
    said = manager.explain(ctx, "volume", "10GiB")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=Explanation) == said
    known = manager.candidates(ctx)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(known), type=type(known)) is not None


def test_a_request_for_one_host_and_one_that_excludes_it(make_manager, ctx, report):
    manager = make_manager()
    report(manager, "node1", disk=gib(100))
    report(manager, "node2", disk=gib(50))
    assert manager.select(ctx, "volume", 1, on_host="node2").host == "node2"
    assert manager.select(ctx, "volume", 1, exclude=("node1",)).host == "node2"
    with pytest.raises(NoCapacity, match="host dropped 2"):
        manager.select(ctx, "volume", 1, exclude=("node1", "node2/disk"))


@pytest.mark.parametrize("size", ["ten", "-1", -1, "", "1.5", "10 GiB GiB", 2**63])
def test_a_size_that_is_none_is_refused_by_name(make_manager, ctx, report, size):
    manager = make_manager()
    report(manager, disk=gib(100))
    for method in (manager.select, manager.explain):
        with pytest.raises(InvalidInput, match=f'"{size}"'):
            method(ctx, "volume", size)
    assert manager.candidates(ctx)[0].promised == 0


def test_an_empty_topic_is_refused(make_manager, ctx):
    with pytest.raises(InvalidInput, match="the topic is empty"):
        make_manager().select(ctx, "")


def test_kept_capabilities_are_there_right_after_the_start(make_manager, ctx, client):
    client.reports = [
        CapabilityReport(topic="volume", host="node1", backends={"disk": gib(10)}, reported_at=1.0),
        CapabilityReport(topic="volume", host="node2", backends={"disk": gib(99)}, reported_at=1.0, stale=True),
    ]
    manager = make_manager()
    manager.init_host_with_rpc()
    assert manager.select(ctx, "volume", "1GiB").host == "node1"
    assert [one.dropped_by for one in manager.explain(ctx, "volume", "1GiB").candidates] == ["", "unavailable"]


def test_a_daemon_that_cannot_be_asked_does_not_stop_the_start(make_manager, ctx, clock, client, report, caplog):
    client.error = DaemonNotRunning("nobody listens")
    manager = make_manager()
    with caplog.at_level(logging.WARNING):
        manager.init_host_with_rpc()
    assert "cannot read the capabilities stored by the daemon: nobody listens" in caplog.text
    report(manager, disk=gib(10))
    for _ in range(3):
        clock.advance(60)
        assert manager.select(ctx, "volume", 1).backend == "disk"
    client.error = None
    with caplog.at_level(logging.INFO):
        manager.sync(ctx)
    said = [record.getMessage() for record in caplog.records if "stored by the daemon" in record.getMessage()]
    assert said == [
        "cannot read the capabilities stored by the daemon: nobody listens",
        "the capabilities stored by the daemon can be read again",
    ]


def test_a_report_that_was_missed_is_looked_for_before_a_request_is_refused(make_manager, ctx, client):
    manager = make_manager()
    manager.init_host_with_rpc()
    with pytest.raises(NoCapacity, match="has reported"):
        manager.select(ctx, "volume", 1)
    client.reports = [CapabilityReport(topic="volume", host="node1", backends={"disk": gib(10)}, reported_at=1.0)]
    # In the same moment: what it has seen a moment ago is no reason to refuse.
    assert manager.select(ctx, "volume", 1).backend == "disk"
    assert manager.candidates(ctx)[0].promised == 1


def test_what_an_operator_has_just_disabled_is_not_chosen(make_manager, ctx, client, clock, report):
    manager = make_manager()
    report(manager, disk=gib(10))
    client.see("volume", "node1", enabled=False, disabled_by="alice", disabled_reason="a new disk")
    clock.advance(1)
    (judged,) = manager.explain(ctx, "volume").candidates
    assert (judged.dropped_by, judged.reason) == (
        "unavailable", "volume on node1 is disabled by alice: a new disk"
    )  # fmt: skip
    assert not manager.candidates(ctx)[0].enabled
    with pytest.raises(NoCapacity, match="unavailable dropped 1"):
        manager.select(ctx, "volume", 1)


class SlowLook:
    """Holds up looks at what the daemon keeps, from the first one that comes."""

    def __init__(self, client):
        self.call, self.asked, self.release = client.call, threading.Event(), threading.Event()
        client.call = self

    def __call__(self, topic, method, /, **arguments):
        answer = self.call(topic, method, **arguments)
        if method == "service_list":
            self.asked.set()
            assert self.release.wait(20)
        return answer


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_a_choice_during_a_look_waits_and_does_not_go_by_what_was_known(make_manager, ctx, client, clock, report):
    manager = make_manager()
    manager.sync(ctx)
    report(manager, disk=gib(10))
    clock.advance(29)
    client.see("volume", "node1", enabled=False)
    slow = SlowLook(client)
    first, _ = in_thread(lambda: manager.explain(ctx, "volume"))
    assert slow.asked.wait(20)
    second, said = in_thread(lambda: manager.explain(ctx, "volume"))
    second.join(0.05)
    assert not said, "it has answered by what was known half a minute ago"
    slow.release.set()
    first.join(20)
    second.join(20)
    assert said[0].candidates[0].dropped_by == "unavailable"


def test_a_look_that_failed_is_not_tried_again_by_each_who_waited_for_it(make_manager, ctx, client, clock, report):
    manager = make_manager()
    manager.sync(ctx)
    report(manager, disk=gib(10))
    clock.advance(1)
    tries, asked, release = [], threading.Event(), threading.Event()

    def fail(topic, method, /, **arguments):
        tries.append(method)
        asked.set()
        assert release.wait(20)
        raise DaemonNotRunning("nobody listens")

    client.call = fail
    works = [in_thread(lambda: manager.candidates(ctx))]
    assert asked.wait(20)
    works += [in_thread(lambda: manager.candidates(ctx)) for _ in range(3)]
    for thread, _ in works[1:]:
        thread.join(0.02)
    release.set()
    for thread, _ in works:
        thread.join(20)
    assert [len(found[0]) for _, found in works] == [1, 1, 1, 1]
    assert tries == ["capabilities"]


def test_a_service_that_went_down_is_dropped_after_the_next_sync(make_manager, ctx, client, report):
    manager = make_manager()
    report(manager, disk=gib(10))
    client.reports = [
        CapabilityReport(topic="volume", host="node1", backends={"disk": gib(10)}, reported_at=1.0, up=False)
    ]
    manager.sync(ctx)
    with pytest.raises(NoCapacity, match="unavailable dropped 1"):
        manager.select(ctx, "volume", 1)


@pytest.mark.failure_mode("State", "clock set an hour back and forth")
def test_a_stale_report_is_no_candidate_whatever_the_wall_clocks_say(make_manager, ctx, clock, report):
    manager = make_manager(stale_after="3min")
    report(manager, disk=gib(10))
    clock.set_wall(clock.wall() + 3600)
    manager.select(ctx, "volume", 1)
    clock.set_wall(clock.wall() - 7200)
    clock.advance(181)
    with pytest.raises(NoCapacity, match="unavailable dropped 1"):
        manager.select(ctx, "volume", 1)
    report(manager, disk=gib(10))
    manager.select(ctx, "volume", 1)


def test_an_unknown_filter_is_an_error_at_the_start_that_names_the_known_ones(make_manager):
    with pytest.raises(ConfigurationError) as caught:
        make_manager(filters=["enabled", "capasity"])
    assert str(caught.value) == (
        'services.scheduler.filters: no installed plugin provides the filter "capasity" (did you mean "capacity"?)'
        "; available: capabilities, capacity, enabled, host"
    )


def test_an_unknown_weigher_is_an_error_at_the_start(make_manager):
    with pytest.raises(ConfigurationError, match="available: allocated, free_space, random"):
        make_manager(weighers={"nearest": 1.0})


def test_what_is_forgotten_before_it_is_stale_is_a_wrong_configuration(make_manager):
    options = make_manager().Options(manager="scheduler", stale_after=100, forget_after=50)
    assert [name for name, _ in options.validate_options()] == ["forget_after"]


def test_a_strangers_filter_and_weigher_work_like_our_own(make_manager, ctx, report):
    manager = make_manager(STRANGER, filters=["quiet", "capacity"], weighers={"near": 1.0})
    report(manager, far=gib(90, metres=900), close=gib(10, metres=3), busy=gib(90, metres=1, load=0.9))
    assert manager.select(ctx, "volume", "1GiB").backend == "close"
    said = {one.backend: one for one in manager.explain(ctx, "volume", "1GiB").candidates}
    assert (said["busy"].dropped_by, said["busy"].reason) == ("quiet", "it is busy")
    assert said["close"].weights == {"near": 1.0}


def test_a_strangers_weigher_that_raises_drops_its_candidate_alone(make_manager, ctx, report):
    manager = make_manager(STRANGER, weighers={"near": 1.0})
    report(manager, there=gib(10, metres=3), nowhere=gib(90))
    assert manager.select(ctx, "volume", "1GiB").backend == "there"
    nowhere = manager.explain(ctx, "volume", "1GiB").candidates[0]
    assert (nowhere.dropped_by, nowhere.reason) == ("near", "the weigher near failed: KeyError: 'metres'")


@pytest.mark.failure_mode("Plugins", "a scheduler or a filter that hangs or raises")
def test_a_filter_that_hangs_holds_up_selections_no_longer_than_their_deadline(make_manager, ctx, clock, report):
    manager = make_manager(STRANGER, filters=["hangs"])
    report(manager, disk=gib(10))
    HangingFilter.entered.clear()
    HangingFilter.release.clear()
    first = threading.Thread(target=manager.select, args=(ctx, "volume", 1))
    first.start()
    try:
        assert HangingFilter.entered.wait(10)
        late = Context("scheduler", "select", clock=clock, deadline=clock.monotonic() + 0.01)
        with pytest.raises(Busy, match="another selection has not finished"):
            manager.select(late, "volume", 1)
        assert manager.candidates(ctx)[0].backend == "disk"
    finally:
        HangingFilter.release.set()
        first.join()


def test_a_reset_takes_over_new_options_and_keeps_what_is_known(make_manager, ctx, clock, report, client):
    manager = make_manager()
    report(manager, roomy=gib(90), idle=gib(50, allocated_bytes=0))
    manager.options = manager.Options(manager="scheduler", weighers={"free_space": -1.0}, stale_after=10)
    manager.reset()
    assert manager.select(ctx, "volume", "1GiB").backend == "idle"
    client.see("volume", "node1", capability_interval=2.0)
    clock.advance(11)
    with pytest.raises(NoCapacity, match="unavailable dropped 2"):
        manager.select(ctx, "volume", "1GiB")


def test_a_reset_to_an_unknown_filter_leaves_the_old_ones_at_work(make_manager, ctx, report):
    manager = make_manager()
    report(manager, disk=gib(10))
    manager.options = manager.Options(manager="scheduler", filters=["nothing"])
    with pytest.raises(ConfigurationError, match='"nothing"'):
        manager.reset()
    assert manager.select(ctx, "volume", 1).backend == "disk"


def test_a_host_does_not_report_in_the_name_of_another(make_manager, clock):
    manager = make_manager()
    node2 = Context("scheduler", "update_capabilities", peer=Peer(name="key:node2", key="k" * 40), clock=clock)
    node2.host = "node2"
    deliver(manager, node2, host="node2", backends={"disk": gib(1)})
    with pytest.raises(NotPermitted, match=r"key:node2 must not call .* on behalf of host node1") as caught:
        deliver(manager, node2, host="node1", backends={"disk": gib(1)})
    assert caught.value.details["speaks_for"] == "node2"
    assert [each.host for each in manager.candidates(node2)] == ["node2"]


def test_one_who_speaks_for_no_host_does_not_report_at_all(make_manager, clock):
    operator = Context("scheduler", "update_capabilities", peer=Peer(1000, 1000, 7, "uid 1000"), clock=clock)
    with pytest.raises(NotPermitted, match="it may act for no host"):
        deliver(make_manager(), operator, host="node1", backends={})


def test_a_report_has_a_length(make_manager, report):
    manager = make_manager()
    with pytest.raises(InvalidInput, match="the name of a backend has 300 characters"):
        report(manager, **{"x" * 300: gib(1)})
    with pytest.raises(InvalidInput, match="the limit is 2097152"):
        report(manager, disk=gib(1, text="x" * 2_200_000))


def test_what_refused_this_request_is_not_chosen_again_and_explain_says_so(make_manager, ctx, report, clock):
    manager = make_manager()
    report(manager, fast=gib(100), slow=gib(50))
    report(manager, "node2", fast=gib(200))
    refused = {"node2": "node2 cannot be reached", "node1/fast": "the disk is full"}
    assert manager.select(ctx, "volume", "10GiB", refused=refused).backend == "slow"
    assert manager.select(ctx, "volume", "10GiB").host == "node2", "another request is another matter"
    clock.advance(12)
    said = {(one.host, one.backend): one.refused for one in manager.explain(ctx, "volume", "1GiB").candidates}
    assert said["node1", "fast"] == "refused 10GiB 12s ago: the disk is full"
    assert said["node2", "fast"] == "refused 10GiB 12s ago: node2 cannot be reached"
    assert said["node1", "slow"] == ""
    with pytest.raises(NoCapacity, match="refused dropped 3"):
        manager.select(ctx, "volume", GIB, refused={**refused, "node1/slow": "stuck"})
    clock.advance(1000)
    assert not any(one.refused for one in manager.explain(ctx, "volume").candidates)
    with pytest.raises(InvalidInput, match="too many entries in `refused`: 101"):
        manager.select(ctx, "volume", refused={f"n{number}": "" for number in range(101)})


def test_a_scheduler_that_is_disabled_chooses_nothing_and_says_who_disabled_it(
    make_manager, ctx, report, client, clock
):
    manager = make_manager()
    report(manager, fast=gib(100))
    client.see("scheduler", "node1", enabled=False, disabled_reason="upgrade", disabled_by="root")
    with pytest.raises(ServiceDisabled, match=r"scheduler on node1 is disabled: upgrade \(by root\)"):
        manager.select(ctx, "volume", GIB)
    assert "while scheduler is disabled: upgrade" in manager.explain(ctx, "volume").why
    client.see("scheduler", "node1", enabled=True)
    clock.advance(1)
    assert manager.select(ctx, "volume", GIB).backend == "fast"


def test_a_refusal_names_what_is_not_offered_and_why(make_manager, ctx, client):
    manager = make_manager()
    deliver(manager, ctx, host="node1", backends={"small": gib(1)}, withheld={"large": "the driver is stuck"})
    with pytest.raises(NoCapacity, match="capacity dropped 1; node1/large: not offered: the driver is stuck"):
        manager.select(ctx, "volume", "10GiB")
    judged = {one.backend: (one.dropped_by, one.reason) for one in manager.explain(ctx, "volume").candidates}
    assert judged == {"small": ("", ""), "large": ("unavailable", "not offered: the driver is stuck")}
    client.see("volume", "node1", link="node1 cannot be reached")
    manager.sync(ctx)
    judged = {one.backend: one.reason for one in manager.explain(ctx, "volume").candidates}
    assert judged["large"] == "not offered: the driver is stuck; node1 cannot be reached"
    client.see("volume", "node1", link="")
    manager.sync(ctx)
    deliver(manager, ctx, host="node1", backends={}, withheld={f"b{n}": "it failed" for n in range(7)})
    named = ", ".join(f"node1/b{number}: not offered: it failed" for number in range(5))
    assert manager.explain(ctx, "volume").why.endswith(f"but no driver is ready; {named}, and 2 more")
