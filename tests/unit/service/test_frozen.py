import asyncio

import pytest

from ostler import Manager, exposed, periodic
from ostler.errors import Draining, NotFound, ServiceFrozen
from ostler.types import OperatorOverride

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)

LAMP = '[services.lamp]\nmanager = "lamp"\npoll = 30\n'
SHOP = '[services.shop]\nmanager = "shop"\n'
BY_ANN = OperatorOverride(by="ann", reason="a new disk", since=7.0)


class Shop(Manager):
    """Sells operations, and calls itself."""

    @exposed(role="operator", changes=False)
    async def look(self, ctx) -> str:
        """Change nothing."""
        return "seen"

    @exposed(role="operator")
    async def sell(self, ctx) -> str:
        """Change something."""
        return "sold"

    @exposed(role="operator")
    async def sell_later(self, ctx, seconds: float) -> str:
        """Call itself, after a while."""
        await asyncio.sleep(seconds)
        return str(await self.client.acall("shop", "sell"))

    @exposed(role="operator", durable=True)
    async def build(self, ctx, name: str) -> str:
        """Be an operation."""
        return name

    @periodic(spacing=30)
    async def tidy(self, ctx) -> None:
        """Call itself."""
        await self.client.acall("shop", "sell")


async def test_a_frozen_service_finishes_what_it_has_and_takes_no_new_work(bench, trouble) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.acall("lamp", "think", seconds=50))
        await asyncio.sleep(1)
        await b.runtime.set_frozen("lamp", BY_ANN)
        with pytest.raises(ServiceFrozen, match="lamp on node1 is frozen by ann: a new disk; it accepts no") as caught:
            await b.client.acall("lamp", "think", seconds=0)
        error = caught.value
        assert isinstance(error, Draining)
        assert "ostler service thaw lamp --host node1" in error.hint
        assert error.retry_after == 10
        facts = {"topic": "lamp", "host": "node1", "state": "frozen", "why": "a new disk", "by": "ann", "since": 7.0}
        assert facts.items() <= error.details.items()
        before = (await b.row()).beat
        trouble.calls.clear()
        assert await working == "thought"
        assert "poll" in trouble.begun
        row = await b.row()
        assert (row.beat > before, b.state(), row.frozen) == (True, "up", BY_ANN)
        await b.runtime.set_frozen("lamp", None)
        assert await b.client.acall("lamp", "think", seconds=0) == "thought"
        assert (await b.row()).frozen is None


async def test_what_changes_nothing_and_what_it_asks_of_itself_is_served_while_frozen(bench) -> None:
    async with bench(SHOP, shop=Shop) as b:
        await b.runtime.start()
        working = asyncio.ensure_future(b.client.acall("shop", "sell_later", seconds=50))
        await asyncio.sleep(1)
        await b.runtime.set_frozen("shop", BY_ANN)
        assert await b.client.acall("shop", "look") == "seen"
        assert await working == "sold"
        (task,) = b.runtime.periodic_scheduler.statuses()
        assert (task.runs, task.errors) == (1, 0)
        with pytest.raises(ServiceFrozen):
            await b.client.acall("shop", "sell")


async def test_queued_operations_wait_while_a_service_is_frozen(bench) -> None:
    async with bench(SHOP + "max_operations = 1\n", shop=Shop) as b:
        await b.runtime.start()
        # As many as a queue can be seen to hold: they were accepted before, and are not begun.
        b.runtime.operations.freeze_topic("shop", True)
        waiting = asyncio.ensure_future(b.client.acall("shop", "build", name="shed"))
        await asyncio.sleep(20)
        await b.runtime.set_frozen("shop", BY_ANN)
        await asyncio.sleep(20)
        assert not waiting.done()
        with pytest.raises(ServiceFrozen):
            await b.client.acall("shop", "build", name="barn")
        await b.runtime.set_frozen("shop", None)
        assert await waiting == "shed"


async def test_frozen_is_kept_over_a_restart_a_drain_and_the_loss_of_its_record(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        await b.runtime.set_frozen("lamp", BY_ANN)
        actions = b.runtime.service_actions
        await actions.drain("lamp", 0, "drained by ann")
        with pytest.raises(Draining, match="drained by ann") as drained:
            await b.client.acall("lamp", "think", seconds=0)
        assert not isinstance(drained.value, ServiceFrozen)
        actions.resume("lamp")
        await expect_frozen(b)
        await actions.restart("lamp", 0, "x")
        await expect_frozen(b)
        await b.store.awrite(lambda: b.runtime.service_records.delete("lamp", "node1"))
        await asyncio.sleep(11)
        assert (await b.row()).frozen == BY_ANN
        await actions.stop("lamp", 0, "x")
        assert [row.frozen for row in await b.runtime.rows()] == [BY_ANN]
        await b.runtime.set_frozen("lamp", None)
        await actions.start("lamp")
        assert await b.client.acall("lamp", "think", seconds=0) == "thought"


async def expect_frozen(b) -> None:
    assert b.service().status().frozen == BY_ANN
    with pytest.raises(ServiceFrozen):
        await b.client.acall("lamp", "think", seconds=0)


async def test_there_is_no_freezing_what_has_no_record(bench) -> None:
    async with bench(LAMP) as b:
        await b.runtime.start()
        with pytest.raises(NotFound, match="service door not found on node1"):
            await b.runtime.set_frozen("door", BY_ANN)
