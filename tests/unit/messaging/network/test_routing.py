import asyncio

import pytest
from msgspec.structs import replace

from ostler.availability import refusal_reason, unavailable_reason
from ostler.clock import FakeClock
from ostler.errors import (
    Busy,
    Conflict,
    ConnectionLost,
    DaemonNotRunning,
    Draining,
    InvalidArguments,
    MethodNotFound,
    NotPermitted,
    ServiceNotFound,
)
from ostler.messaging import Context
from ostler.messaging.network.routing import Router
from ostler.messaging.wire.envelope import LENIENT
from ostler.messaging.wire.request import FANOUT_FLAGS, CallRequest
from ostler.types import MethodDescription, OperatorOverride, Peer, Role, ServiceState, ServiceStatus


class Other:
    """Another daemon, whose answers are those of the test."""

    def __init__(self, host, *topics, answers=None, up=True, role="operator"):
        self.host, self.up, self.role = host, up, role
        self.services = {topic: ServiceStatus(topic=topic, host=host, state=ServiceState.UP) for topic in topics}
        self.answers = answers or [host]
        self.asked, self.ids, self.secret = [], [], []
        self.back, self.patience, self.hurried = False, None, 0
        self.client = self

    async def send_request(self, ask):
        self.asked.append(ask)
        answer = self.answers[(len(self.asked) - 1) % len(self.answers)]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def runs(self, topic):
        return topic in self.services

    def status_of(self, topic):
        row = self.services.get(topic)
        return row if row is None or self.up else replace(row, link=self.unreachable_error().message)

    def is_starting(self, topic):
        return self.up and self.services[topic].state is ServiceState.STARTING

    def accepts(self, topic):
        return topic in self.services and (self.is_starting(topic) or not refusal_reason(self.status_of(topic)))

    def is_available(self, topic):
        return topic in self.services and not unavailable_reason(self.status_of(topic))

    def unreachable_error(self):
        return DaemonNotRunning(f"{self.host} has been unreachable for 7s: no cable")

    def retry_now(self):
        self.hurried += 1

    async def wait_reachable(self, patience):
        self.patience = patience
        self.retry_now()
        self.up = self.back
        if not self.back:
            raise self.unreachable_error()
        return 0.25

    async def send_attempt(self, ask, request_id):
        self.ids.append(request_id)
        return await self.send_request(ask)

    async def describe(self, topic, method):
        return MethodDescription(
            topic=topic, method=method, role=self.role, version="1.0", changes=True, arguments=[], result="", doc="",
            secret=self.secret,
        )  # fmt: skip


class Others:
    def __init__(self, *peers):
        self.peers = {peer.host: peer for peer in peers}

    def peers_with(self, topic):
        return [peer for peer in self.peers.values() if peer.runs(topic)]


def router(*peers, local=()):
    made = Router("here", local.__contains__)
    made.peers = Others(*peers)
    return made


def ask(router, topic="volume", host=None, **more):
    return asyncio.run(router.send_request(CallRequest(topic, "create", {}, host, **more)))


def test_a_service_of_this_daemon_comes_first_unless_another_host_is_named():
    routes = router(Other("node2", "volume"), local={"volume"})
    assert routes.is_local(CallRequest("volume", "create", {}))
    assert routes.is_local(CallRequest("volume", "create", {}, "here"))
    assert routes.is_local(CallRequest("nothing", "create", {})), "it is refused here, by name"
    assert not routes.is_local(CallRequest("volume", "create", {}, "node2"))
    assert not routes.is_local(CallRequest("volume", "create", {}, flags=FANOUT_FLAGS))
    assert Router("here", {"x"}.__contains__).is_local(CallRequest("volume", "create", {}, "node2")), (
        "there are no others"
    )


def test_members_take_turns():
    routes = router(Other("node2", "volume"), Other("node3", "volume"), Other("node4"))
    assert [ask(routes) for _ in range(4)] == ["node2", "node3", "node2", "node3"]


def test_one_that_was_starting_when_it_was_last_asked_comes_last():
    starts = Other("node2", "volume")
    starts.services["volume"] = ServiceStatus(topic="volume", host="node2")
    up = Other("node3", "volume")
    assert [ask(router(starts, up)) for _ in range(2)] == ["node3", "node3"]
    up.up = False
    assert ask(router(starts, up)) == "node2"


def test_one_that_is_not_well_is_asked_only_when_there_is_no_better_one():
    sick, well = Other("node2", "volume"), Other("node3", "volume")
    sick.services["volume"] = replace(
        sick.services["volume"], state=ServiceState.DEGRADED, evidence={"is_working": "no"}
    )
    assert [ask(router(sick, well)) for _ in range(2)] == ["node3", "node3"]
    well.up = False
    assert ask(router(sick, well)) == "node2"


def test_services_of_other_hosts_are_those_of_the_fleet_and_the_rest_say_why_not():
    alone = Router("here", set().__contains__)
    assert (alone.services(), alone.reports()) == ([], [])
    assert (alone.is_peer("node2"), alone.missing_reason("volume", "node2")) == (False, "")
    routes = router(Other("node2", "volume"), Other("node3", up=False))
    assert routes.is_peer("node2")
    assert routes.missing_reason("lamp", "node2") == "node2 no longer has a service lamp"
    assert routes.missing_reason("lamp", "node3") == "node3 has been unreachable for 7s: no cable"


@pytest.mark.parametrize(
    "error",
    [DaemonNotRunning("gone"), Draining("stopping"), Busy("full"), ServiceNotFound("closed"), MethodNotFound("older")],
)
def test_the_next_member_is_asked_when_the_work_was_surely_not_begun(error):
    routes = router(Other("node2", "volume", answers=[error]), Other("node3", "volume"))
    assert [ask(routes) for _ in range(3)] == ["node3"] * 3


def test_a_method_that_no_member_has_is_not_found():
    older = [Other(host, "volume", answers=[MethodNotFound("no method 'x'")] * 2) for host in ("node2", "node3")]
    with pytest.raises(MethodNotFound):
        ask(router(*older))
    with pytest.raises(DaemonNotRunning, match=r"node4 has been unreachable.*no method 'x'|no method 'x'.*node4"):
        ask(router(*older, Other("node4", "volume", up=False)))


@pytest.mark.parametrize("error", [ConnectionLost("cut"), InvalidArguments("no"), NotPermitted("no")])
def test_no_other_member_is_asked_when_work_may_have_begun_or_all_would_refuse(error):
    third = Other("node3", "volume")
    with pytest.raises(type(error)):
        ask(router(Other("node2", "volume", answers=[error]), third))
    assert not third.asked


def test_members_away_disabled_or_draining_are_not_asked_and_named_if_none_is_left():
    away, off, stops = Other("node2", "volume", up=False), Other("node3", "volume"), Other("node4", "volume")
    off.services["volume"] = ServiceStatus(topic="volume", host="node3", state=ServiceState.UP, enabled=False)
    stops.services["volume"] = ServiceStatus(topic="volume", host="node4", state=ServiceState.DRAINING)
    with pytest.raises(DaemonNotRunning) as caught:
        ask(router(away, off, stops))
    said = str(caught.value)
    assert "node2 has been unreachable for 7s: no cable" in said
    assert "volume on node3 is disabled" in said
    assert "volume on node4 is draining" in said
    assert not off.asked + stops.asked


def test_an_unknown_host_is_named_with_the_known_ones_and_one_that_is_away_at_once():
    routes = router(Other("node2", "volume", up=False))
    with pytest.raises(ServiceNotFound, match=r"host 'node9' not found for volume\.create; available: here, node2"):
        ask(routes, host="node9")
    with pytest.raises(DaemonNotRunning, match="node2 has been unreachable"):
        ask(routes, host="node2")


def test_a_peer_that_is_away_is_tried_at_once_for_a_call_within_its_time():
    other = Other("node2", "volume", up=False)
    other.back = True
    assert ask(router(other), host="node2", timeout=5.0) == "node2"
    assert (other.patience, other.asked[0].timeout) == (5.0, 4.75)
    other.up = False
    assert (
        asyncio.run(router(other).relay(context(Role.OPERATOR), "node2", CallRequest("volume", "create", {})))
        == "node2"
    )


def test_members_that_are_away_are_tried_only_when_nobody_else_takes_a_request():
    away, there = Other("node2", "volume", up=False), Other("node3", "volume")
    away.back = True
    assert [ask(router(away, there)) for _ in range(2)] == ["node3"] * 2
    assert not away.hurried
    there.services["volume"] = ServiceStatus(topic="volume", host="node3", state=ServiceState.DRAINING)
    assert ask(router(away, there), timeout=5.0) == "node2"
    assert away.asked[0].timeout == 4.75


def test_a_stream_does_not_wait_for_a_peer_that_is_away_and_has_it_tried():
    away = Other("node2", "volume", up=False)
    with pytest.raises(DaemonNotRunning):
        router(away).open_stream(CallRequest("volume", "list", {}, "node2"), 1)
    assert away.hurried == 1


def test_a_fanout_reaches_whoever_can_be_reached_and_is_summed():
    members = [
        Other("node2", "volume", answers=[1]),
        Other("node3", "volume", answers=[ConnectionLost("cut")]),
        Other("node4", "volume", up=False),
        Other("node5", "volume", answers=[2]),
    ]
    assert asyncio.run(router(*members).fan_out(CallRequest("volume", "create", {}, flags=FANOUT_FLAGS))) == 3
    members[0].answers = [InvalidArguments("no such argument")]
    with pytest.raises(InvalidArguments):
        asyncio.run(router(*members).fan_out(CallRequest("volume", "create", {}, flags=FANOUT_FLAGS)))


def context(role):
    return Context("ostler", "relay", peer=Peer(1000, name="uid 1000"), role=role, clock=FakeClock())


def test_a_relayed_call_needs_the_role_here_that_the_method_asks_for_there():
    other = Other("node2", "volume")
    routes = router(other)
    relay = routes.relay(context(Role.OPERATOR), "node2", CallRequest("volume", "create", {"size": "1"}))
    assert asyncio.run(relay) == "node2"
    (asked,) = other.asked
    assert (asked.host, asked.flags, asked.arguments) == ("node2", LENIENT, {"size": "1"})
    for role in ("admin", "nobody", "emperor"):
        other.role = role
        with pytest.raises(NotPermitted, match=f"on node2 needs the role {role}, uid 1000 has operator here"):
            asyncio.run(routes.relay(context(Role.OPERATOR), "node2", CallRequest("volume", "create", {})))
    assert len(other.asked) == 1


def test_a_stream_comes_from_the_host_named_or_from_a_member_that_takes_work():
    class Streaming(Other):
        def open_stream(self, ask, credit):
            assert ask.host == self.host
            return self.host, credit

    routes = router(Streaming("node2", "volume", up=False), Streaming("node3", "volume"))
    assert [routes.open_stream(CallRequest("volume", "list", {}), 9) for _ in range(2)] == [("node3", 9)] * 2
    assert routes.open_stream(CallRequest("volume", "list", {}, "node3"), 1) == ("node3", 1)
    with pytest.raises(DaemonNotRunning, match="node2 has been unreachable"):
        routes.open_stream(CallRequest("volume", "list", {}, "node2"), 1)
    routes.peers.peers.pop("node3")
    with pytest.raises(DaemonNotRunning, match=r"no host can serve volume\.list now"):
        routes.open_stream(CallRequest("volume", "list", {}), 1)


def test_nothing_is_relayed_twice_for_the_one_in_the_middle_would_lend_its_rights():
    other = Other("node2", "volume", role="viewer")
    routes = router(other)
    for method in ("relay", "relay_stream"):
        with pytest.raises(NotPermitted, match=rf"uid 1000 is not allowed to have ostler\.{method} relayed to node2"):
            asyncio.run(routes.relay(context(Role.ADMIN), "node2", CallRequest("ostler", method, {})))
    remote = Context("ostler", "relay", peer=Peer(key="K", name="key:node3"), role=Role.ADMIN, clock=FakeClock())
    with pytest.raises(NotPermitted, match="only requests of local callers are relayed, and only once"):
        asyncio.run(routes.relay(remote, "node2", CallRequest("volume", "create", {})))
    assert not other.asked


def test_a_relayed_request_is_all_secret_until_the_other_host_says_what_is():
    other = Other("node2", "volume", answers=[Conflict("canary-1 and plain-1")])
    other.secret = ["key", "login"]
    routes, ctx = router(other), context(Role.OPERATOR)
    ctx.secrets = ("canary-1", "canary-2", "plain-1")
    ask = CallRequest("volume", "create", {"key": "canary-1", "login": '{"password": "canary-2"}', "name": "plain-1"})
    other.up = False
    with pytest.raises(DaemonNotRunning):
        asyncio.run(routes.relay(ctx, "node2", ask))
    assert "plain-1" in ctx.secrets
    other.up = True
    with pytest.raises(Conflict):
        asyncio.run(routes.relay(ctx, "node2", ask))
    assert {"canary-1", "canary-2"} <= set(ctx.secrets)
    assert "plain-1" not in ctx.secrets
    other.secret = []
    with pytest.raises(Conflict):
        asyncio.run(routes.relay(ctx, "node2", ask))
    assert ctx.secrets == ()


def test_a_stream_is_relayed_to_whoever_has_the_role_with_few_items_on_their_way():
    class Streaming(Other):
        def open_stream(self, ask, credit):
            return ask.host, ask.flags, credit

    routes = router(Streaming("node2", "volume"))
    relayed = routes.relay_stream(context(Role.OPERATOR), "node2", CallRequest("volume", "watch", {}))
    assert asyncio.run(relayed) == ("node2", LENIENT, 64)
    with pytest.raises(NotPermitted):
        asyncio.run(routes.relay_stream(context(Role.VIEWER), "node2", CallRequest("volume", "watch", {})))


def test_hosts_of_a_topic_are_those_that_serve_it_now_with_since_when():
    peers = [Other(f"node{number}", "volume") for number in range(2, 6)]
    for number, peer in enumerate(peers):
        peer.since = float(number)
        peer.services["volume"] = ServiceStatus(topic="volume", host=peer.host, state=ServiceState.UP)
    peers[1].up = False
    peers[2].services["volume"] = ServiceStatus(topic="volume", host="node4", state=ServiceState.STARTING)
    assert router(*peers, local={"volume"}).serving_hosts("volume") == {"here": 0.0, "node2": 0.0, "node5": 3.0}
    assert router(*peers).serving_hosts("nothing") == {}
    made = router(*peers)
    made.forced_down = {("volume", "node5"): OperatorOverride(by="bob")}
    assert made.serving_hosts("volume") == {"node2": 0.0}
    assert Router("here", {"volume"}.__contains__).serving_hosts("volume") == {"here": 0.0}
