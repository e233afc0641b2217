"""Turns of the loop's time."""

import asyncio
from collections import Counter

import pytest

from ostler.aio.round_robin import HIGH_RANK, NORMAL_RANK, SLICE_TIME, TURN_TIME, DeficitRoundRobin
from support.async_tests import loop_fixture


@pytest.fixture
def time():
    """A clock that only work moves."""

    class Time:
        now = 100.0

        def __call__(self):
            return self.now

    return Time()


class Work:
    """A flow with so many pieces of work, each of which takes so long."""

    def __init__(self, time, log, name, pieces, cost, rank=NORMAL_RANK, account=None):
        self.account = account or name
        self.rank = rank
        self._time, self._log, self._name, self._left, self._cost = time, log, name, pieces, cost

    def run(self, until):
        while self._left:
            self._left -= 1
            self._time.now += self._cost
            self._log.append(self._name)
            if self._time.now >= until:
                break
        return bool(self._left)


@loop_fixture
async def turns(time):
    yield DeficitRoundRobin(monotonic=time)


async def all_done(turns):
    while len(turns):
        await asyncio.sleep(0)


async def test_when_nobody_waits_a_flow_works_at_once(turns, time):
    log = []
    assert not turns.run_or_queue(Work(time, log, "a", 3, 0.0001))
    assert log == ["a"] * 3


async def test_what_is_left_after_a_slice_waits_for_its_turn(turns, time):
    log = []
    assert turns.run_or_queue(Work(time, log, "a", 100, 0.0001))
    assert len(log) == round(SLICE_TIME / 0.0001)
    await asyncio.sleep(0)
    assert len(log) <= round((SLICE_TIME + TURN_TIME) / 0.0001) + 2
    await all_done(turns)
    assert len(log) == 100


async def test_many_that_are_ready_at_once_have_no_more_than_a_turn_together(turns, time):
    log = []
    waits = [turns.run_or_queue(Work(time, log, f"a{number}", 1, 0.0004)) for number in range(100)]
    assert len(log) <= round(TURN_TIME / 0.0004) + 2
    assert sum(waits) == 100 - len(log)
    await all_done(turns)
    assert len(log) == 100


async def test_accounts_take_turns_however_many_flows_one_has(turns, time):
    log = []
    for number in range(50):
        turns.enqueue(Work(time, log, "many", 1000, 0.0001, account=("many",)))
        if number == 10:
            turns.enqueue(Work(time, log, "one", 100, 0.0001))
    await asyncio.sleep(0)
    while "one" not in log or log.count("one") < 100:
        await asyncio.sleep(0)
    counts = Counter(log)
    assert counts["one"] == 100
    assert counts["many"] < 130


async def test_what_costs_more_is_paid_for_before_the_next_turn(turns, time):
    log = []
    turns.enqueue(Work(time, log, "dear", 1000, 0.010))
    turns.enqueue(Work(time, log, "cheap", 1000, 0.0001))
    while log.count("cheap") < 1000:
        await asyncio.sleep(0)
    # Both had the same seconds, not the same number.
    assert 8 <= log.count("dear") <= 14


async def test_who_is_first_is_served_before_all_others(turns, time):
    log = []
    for number in range(20):
        turns.enqueue(Work(time, log, f"n{number}", 100, 0.0001))
    turns.enqueue(Work(time, log, "root", 10, 0.0001, rank=HIGH_RANK))
    await asyncio.sleep(0)
    assert log[:10] == ["root"] * 10


async def test_a_flow_that_is_removed_works_no_more(turns, time):
    log = []
    gone = Work(time, log, "gone", 10, 0.0001)
    turns.enqueue(gone)
    turns.enqueue(Work(time, log, "stays", 10, 0.0001))
    turns.remove(gone)
    turns.remove(gone)
    await all_done(turns)
    assert set(log) == {"stays"}


async def test_a_flow_that_raises_takes_nobodys_turn_away(turns, time, caplog):
    log = []

    class Broken:
        account, rank = "broken", NORMAL_RANK

        def run(self, until):
            raise ValueError("a defect")

    turns.enqueue(Broken())
    turns.enqueue(Work(time, log, "well", 10, 0.0001))
    await all_done(turns)
    assert log == ["well"] * 10
    assert "a defect" in caplog.text


async def test_timers_have_their_turn_whatever_flows_bring(turns, time):
    class Endless:
        account, rank = "endless", NORMAL_RANK

        def run(self, until):
            time.now = until
            return True

    for _ in range(20):
        turns.enqueue(Endless())
    for _ in range(50):
        began = time.now
        await asyncio.sleep(0)  # whatever else the loop has to do comes in here
        assert time.now - began <= TURN_TIME + SLICE_TIME


async def test_what_a_flow_has_others_do_is_charged_to_it(turns, time):
    woken = []

    class Wakes:
        rank = NORMAL_RANK

        def __init__(self, account):
            self.account = account

        def run(self, until):
            woken.append(self.account)
            turns.charge_current(SLICE_TIME)
            return False

    for number in range(40):
        turns.enqueue(Wakes(number))
    await asyncio.sleep(0)
    assert len(woken) <= round(TURN_TIME / SLICE_TIME) + 1
    await all_done(turns)
    assert len(woken) == 40
