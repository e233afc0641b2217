from __future__ import annotations

import asyncio
import copy
import logging

import pytest

from ostler.aio import TaskOwner
from ostler.errors import Draining, MethodNotFound, NotPermitted
from ostler.service.capabilities.capability_delivery import CapabilityDelivery
from ostler.service.capabilities.service_capabilities import ServiceCapabilities
from ostler.testing.virtual_time import virtual_clock
from support.async_tests import loop_fixture

pytestmark = pytest.mark.virtual_time


class FakeClient:
    """Client and router: knows the hosts that a test names, and does on each what the test wants."""

    peers = ()

    def __init__(self):
        self.known = {"node1": 0.0}
        self.got = []
        self.does = {}

    def serving_hosts(self, topic):
        return dict(self.known)

    def on(self, *, host, timeout):
        view = copy.copy(self)
        view.host, view.timeout = host, timeout
        return view

    async def acall(self, topic, method, /, *, report):
        assert (topic, method) == ("scheduler", "update_capabilities")
        async with asyncio.timeout(self.timeout):
            await self.does.get(self.host, asyncio.sleep)(0)
        self.got.append((self.host, report.topic, report.sequence))


class Setting:
    def __init__(self):
        self.client = FakeClient()
        self.state = ServiceCapabilities("volume", "node1", "run1")
        self.state.enabled = True
        self.tasks = TaskOwner("test")
        self.listening = set()
        states, tells = {"volume": self.state}, self.listening.__contains__
        self.delivery = CapabilityDelivery(self.client, self.client, virtual_clock(), states, self.tasks, tells)
        self.state.update_offer(["disk"], {})

    def change(self):
        self.state.complete_query(self.state.begin_query("disk", 0.0), {"disk": {}}, {})
        self.delivery.send_pending()


@loop_fixture
async def one():
    setting = Setting()
    try:
        yield setting
    finally:
        await setting.tasks.cancel()


async def test_each_scheduler_gets_the_last_report_once(one):
    one.client.known["node2"] = 1.0
    one.change()
    one.change()
    await asyncio.sleep(1)
    one.delivery.send_pending()
    await asyncio.sleep(1)
    assert sorted(one.client.got) == [("node1", "volume", 2), ("node2", "volume", 2)]
    assert not one.delivery.is_pending("node1")


@pytest.mark.failure_mode("Plugins", "a scheduler or a filter that hangs or raises")
async def test_a_scheduler_that_hangs_holds_up_no_other(one):
    one.client.known["node2"] = 1.0
    gate = asyncio.Event()
    one.client.does["node2"] = lambda _: gate.wait()
    for _ in range(3):
        one.change()
        await asyncio.sleep(0.1)
    assert [got[2] for got in one.client.got] == [1, 2, 3]
    assert not one.delivery.is_pending("node1")
    gate.set()
    await asyncio.sleep(0.1)
    assert one.client.got[-1] == ("node2", "volume", 3)


async def test_a_scheduler_that_was_away_is_told_everything_anew(one):
    one.client.known["node2"] = 1.0
    one.change()
    await asyncio.sleep(0.1)
    one.client.known["node2"] = 2.0
    assert one.delivery.seconds_to_next_check() <= 1.0
    one.delivery.send_pending()
    await asyncio.sleep(0.1)
    assert one.client.got.count(("node2", "volume", 1)) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [(NotPermitted("it may not"), 1), (Draining("it stops"), 0), (MethodNotFound("it takes no reports"), 0)],
)
async def test_a_scheduler_that_refuses_reports_is_tried_again_and_that_is_said_once(one, caplog, error, said):
    tries = []

    async def refuse(_):
        tries.append(asyncio.get_running_loop().time())
        raise error

    one.client.does["node1"] = refuse
    one.change()
    for _ in range(200):
        await asyncio.sleep(0.1)
        one.delivery.send_pending()
    assert 4 < len(tries) < 9
    del one.client.does["node1"]
    await asyncio.sleep(30)
    one.delivery.send_pending()
    await asyncio.sleep(0.1)
    assert one.client.got == [("node1", "volume", 1)]
    assert len([row for row in caplog.records if row.levelno >= logging.WARNING]) == said


async def test_a_host_that_listens_to_this_one_is_told_nothing_twice(one):
    one.client.known["node2"] = 1.0
    one.listening.add("node2")
    one.change()
    await asyncio.sleep(0.1)
    assert one.client.got == [("node1", "volume", 1)]
    one.listening.clear()
    one.delivery.send_pending()
    await asyncio.sleep(0.1)
    assert one.client.got[1:] == [("node2", "volume", 1)]


async def test_nothing_is_sent_before_it_is_known_whether_the_service_is_disabled(one):
    one.state.enabled = None
    one.change()
    await asyncio.sleep(1)
    assert one.client.got == []
    assert one.delivery.is_pending("node1")
