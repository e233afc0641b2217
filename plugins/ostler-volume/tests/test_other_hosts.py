"""Volumes on other hosts than the one they are asked for at: managers that reach each other, without a daemon."""

from __future__ import annotations

import asyncio
import copy
import inspect
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from ostler import Conflict, Context, DaemonNotRunning, InvalidInput, ServiceNotFound, Store
from ostler.testing import FakeClock
from ostler_volume.api_types import SchedulerSelection, Volume
from ostler_volume.errors import AlreadyExists, BadName, SnapshotNotFound, VolumeNotFound
from ostler_volume.other_hosts import HostAnswers, only_host_with, parse_volume_address

# private: _volumes: what happens between two steps of one request

MIB = 2**20


class FakeNetwork:
    """The managers of several hosts, of which some may be away; `log` has who asked whom for what."""

    def __init__(self):
        self.managers, self.unreachable, self.log = {}, set(), []
        self.chosen = None

    async def ask(self, here, topic, method, host, arguments):
        if topic == "ostler":
            if method != "service_list":
                raise ServiceNotFound("nothing is disabled")
            return [SimpleNamespace(topic="volume", host=name) for name in self.managers]
        if topic == "scheduler":
            if self.chosen is None:
                raise ServiceNotFound("no scheduler")
            return self.chosen
        if host in self.unreachable:
            raise DaemonNotRunning(f"{host} has been unreachable for 7s")
        if host != here:
            self.log.append((here, host, method))
        ctx = Context("volume", method, clock=FakeClock())
        work = getattr(self.managers[host], method)
        if inspect.iscoroutinefunction(work):
            return await work(ctx, **arguments)
        return await asyncio.to_thread(work, ctx, **arguments)


class FakeNetworkClient:
    def __init__(self, net, here):
        self.net, self.here, self.host, self.changes = net, here, None, []

    def on(self, **options):
        view = copy.copy(self)
        view.host = options.get("host", self.host)
        return view

    async def acall(self, topic, method, /, **arguments):
        return await self.net.ask(self.here, topic, method, self.host, arguments)

    def call(self, topic, method, /, **arguments):
        return asyncio.run(self.acall(topic, method, **arguments))

    def notify(self, *_):
        pass


@pytest.fixture
def net(kit, tmp_path):
    made = FakeNetwork()
    with ExitStack() as stack:
        for host in ("node1", "node2", "node3"):
            store = Store.open(tmp_path / host / "state" / "ostler.db", synchronous="NORMAL")
            stack.callback(store.close)
            store.migrate("volume", "ostler_volume.migrations")
            driver = kit.file_driver(tmp_path / host / "volumes")
            stack.callback(driver.cleanup)
            drivers = kit.FakeDrivers(local=driver)
            made.managers[host] = kit.manager(store, drivers, FakeNetworkClient(made, host), host=host)
        yield made


@pytest.fixture
def one(net):
    return net.managers["node1"]


def get(manager, ctx, name, **more):
    return asyncio.run(manager.get_volume(ctx, name, **more))


def listing(manager, ctx, **more):
    return asyncio.run(manager.volume_listing(ctx, **more))


def test_a_volume_placed_on_another_host_is_seen_used_and_deleted_where_asked_for(net, one, ctx):
    net.chosen = SchedulerSelection(host="node2", backend="local")
    assert one.create_volume(ctx, "data", "1MiB").host == "node2"
    assert get(one, ctx, "data").host == "node2"
    assert [(each.name, each.host) for each in listing(one, ctx).volumes] == [("data", "node2")]
    assert one.extend_volume(ctx, "data", "2MiB").size == 2 * MIB
    made = one.create_snapshot(ctx, "data", "s")
    assert (made.volume, made.host) == ("data", "node2")
    assert [each.host for each in asyncio.run(one.list_snapshots(ctx, "data"))] == ["node2"]
    assert one.create_volume(ctx, "copy", source="data").host == "node2"
    assert one.create_volume(ctx, "back", snapshot="s").host == "node2"
    assert one.create_volume(ctx, "again", snapshot="data@s").host == "node2"
    one.delete_snapshot(ctx, "data", "s")
    for name in ("data", "copy", "back", "again"):
        one.delete_volume(ctx, name)
    assert listing(one, ctx).volumes == []
    with pytest.raises(VolumeNotFound, match="volume data not found"):
        one.delete_volume(ctx, "data")


def test_a_name_is_taken_on_all_hosts_together(net, one, ctx):
    net.managers["node2"].create_volume(ctx, "data", "1MiB", backend="local")
    with pytest.raises(AlreadyExists, match="volume data already exists on node2"):
        one.create_volume(ctx, "data", "1MiB", backend="local")
    with pytest.raises(AlreadyExists, match="on node2"):
        one.begin_upload(ctx, "data", 512, backend="local")
    net.chosen = SchedulerSelection(host="node3", backend="local")
    with pytest.raises(AlreadyExists, match="on node2"):
        one.create_volume(ctx, "data", "1MiB")


@pytest.mark.failure_mode("State", "two that take one name or make one directory at once")
def test_of_two_hosts_that_take_a_name_at_once_never_do_both_get_it(net, one, ctx):
    two, begin = net.managers["node2"], one._volumes.begin

    def begin_after_the_other(plan, image=None, **options):
        # The other one takes the name after this one has looked, and before it is written down here.
        two.create_volume(ctx, "data", "1MiB", backend="local")
        return begin(plan, image, **options)

    one._volumes.begin = begin_after_the_other
    with pytest.raises(AlreadyExists, match="on node2"):
        one.create_volume(ctx, "data", "1MiB", backend="local")
    assert [(each.name, each.host) for each in listing(one, ctx).volumes] == [("data", "node2")]


def test_what_happens_with_names_while_a_host_is_away_is_said(net, one, ctx):
    net.managers["node2"].create_volume(ctx, "data", "1MiB", backend="local")
    net.unreachable.add("node2")
    made = one.create_volume(ctx, "data", "1MiB", backend="local")
    assert "unreachable, and may also have a volume data: node2 (node2 has been unreachable" in made.note
    shown = listing(one, ctx)
    assert [each.host for each in shown.volumes] == ["node1"]
    assert shown.unreachable == {"node2": "node2 has been unreachable for 7s"}
    with pytest.raises(
        VolumeNotFound, match=r"volume web not found; unreachable hosts: node2 \(node2 has been unreachable"
    ):
        one.extend_volume(ctx, "web", "2MiB")
    with pytest.raises(VolumeNotFound, match="unreachable hosts: node2"):
        get(one, ctx, "web")
    net.unreachable.clear()
    assert get(one, ctx, "data").host == "node1", "a name alone means the one here"
    assert get(one, ctx, "data@node2").host == "node2"
    third = net.managers["node3"]
    with pytest.raises(Conflict, match="several hosts have a volume data: node1, node2"):
        get(third, ctx, "data")
    with pytest.raises(Conflict):
        third.delete_volume(ctx, "data")
    third.delete_volume(ctx, "data@node2")
    assert get(third, ctx, "data").host == "node1"


def test_what_is_here_is_used_without_asking_anybody(net, one, ctx):
    one.create_volume(ctx, "data", "1MiB", backend="local")
    net.log.clear()
    net.unreachable.update(("node2", "node3"))
    one.extend_volume(ctx, "data", "2MiB")
    get(one, ctx, "data")
    one.delete_volume(ctx, "data")
    assert net.log == []


def test_a_request_that_was_passed_on_is_not_passed_on_again(net, one, ctx):
    for verb in (one.delete_volume, one.attach_volume):
        with pytest.raises(VolumeNotFound):
            verb(ctx, "data", on_host="node1")
    with pytest.raises(VolumeNotFound):
        verb(ctx, "data@node3")
    assert net.log == [("node1", "node3", "attach_volume")]


def test_hosts_that_are_named_are_the_only_ones(net, one, ctx):
    assert one.create_volume(ctx, "data", "1MiB", on_host="node3").host == "node3"
    assert [each.name for each in listing(one, ctx, on_host="node3").volumes] == ["data"]
    assert listing(one, ctx, on_host="node1").volumes == []
    assert asyncio.run(one.list_snapshots(ctx, on_host="node2")) == []
    with pytest.raises(VolumeNotFound):
        get(one, ctx, "data", on_host="node2")
    with pytest.raises(SnapshotNotFound, match="snapshot none not found"):
        one.create_volume(ctx, "copy", snapshot="none")


def test_a_volume_is_written_with_or_without_its_host():
    assert parse_volume_address("a") == ("a", "")
    assert (
        parse_volume_address("a", "node1")
        == parse_volume_address("a@node1")
        == parse_volume_address("a@node1", "node1")
        == ("a", "node1")
    )
    for text, host in (("a@", ""), ("a@node1", "node2")):
        with pytest.raises(InvalidInput):
            parse_volume_address(text, host)
    for text in ("", "@node1", "a/b@node1"):
        with pytest.raises(BadName):
            parse_volume_address(text)


def test_of_those_that_were_found_there_must_be_one():
    volume = Volume(name="a", size=1, state="available", backend="local")
    assert only_host_with("a", HostAnswers({"node2": volume}, {"node3": "away"})) == "node2"
    with pytest.raises(VolumeNotFound, match="volume a not found;"):
        only_host_with("a", HostAnswers({}, {}))


def test_content_handed_over_may_go_to_another_host_when_its_caller_can_follow(net, one, ctx):
    net.chosen = SchedulerSelection(host="node2", backend="local")
    begun = one.begin_upload(ctx, "data", 512, anywhere=True)
    assert begun.host == "node2"
    two = net.managers["node2"]
    two.upload_piece(ctx, begun.id, 0, b"x" * 512)
    assert two.finish_upload(ctx, begun.id).host == "node2"
    assert one.begin_upload(ctx, "more", 512, backend="local", on_host="node3").host == "node3"
    for manager in net.managers.values():
        manager.cleanup_host()
