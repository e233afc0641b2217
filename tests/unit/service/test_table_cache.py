import asyncio

import pytest

from ostler.errors import StoreUnavailable
from ostler.service.table_cache import TableCache

pytestmark = pytest.mark.virtual_time


class Table:
    """A table that takes a while to be read, and may be out of reach."""

    def __init__(self):
        self.value, self.version, self.reads, self.seconds, self.error = 0, 0, 0, 0.01, None

    async def read(self):
        self.reads += 1
        value = self.value
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return value

    def change(self, value):
        self.value, self.version = value, self.version + 1


@pytest.fixture
def table():
    return Table()


def copied(table):
    return TableCache(table.read, -1, lambda: table.version)


async def test_a_thousand_who_ask_at_once_have_the_table_read_once(table):
    copy = copied(table)
    assert set(await asyncio.gather(*(copy.get() for _ in range(1000)))) == {0}
    assert table.reads == 1


async def test_who_asks_after_a_change_gets_what_was_read_after_it(table):
    copy = copied(table)
    early = asyncio.ensure_future(copy.get())
    await asyncio.sleep(0.005)  # in the middle of the first read
    table.change(7)
    assert await copy.get() == 7
    assert await early in (0, 7)
    assert table.reads == 2


async def test_nobody_waits_for_the_table_while_nothing_is_known_to_have_changed(table):
    copy = copied(table)
    await copy.get()
    table.value = 5  # a heartbeat, that nobody can know of
    await asyncio.sleep(0.6)
    before = asyncio.get_running_loop().time()
    assert await copy.get() == 0
    assert asyncio.get_running_loop().time() == before
    await asyncio.sleep(0.05)
    assert (await copy.get(), table.reads) == (5, 2)


async def test_who_has_not_asked_for_long_waits_for_what_the_table_says_now(table):
    copy = copied(table)
    await copy.get()
    table.value = 5
    await asyncio.sleep(60)
    assert await copy.get() == 5


async def test_while_it_cannot_be_read_it_says_what_it_said_last(table):
    copy = copied(table)
    await copy.get()
    table.error = StoreUnavailable("locked")
    table.change(5)
    assert await copy.get() == 0
    table.error = None
    table.change(6)
    assert await copy.get() == 6


async def test_a_read_that_hangs_is_not_waited_for_longer_than_half_a_second(table):
    copy = copied(table)
    await copy.get()
    table.seconds = 3600.0
    table.change(5)
    before = asyncio.get_running_loop().time()
    assert await copy.get() == 0
    assert asyncio.get_running_loop().time() - before == pytest.approx(0.5, abs=0.01)
