"""When the loop stays awake after a message."""

import asyncio

import pytest

from ostler.messaging.unix.server import SpinWait
from support.async_tests import loop_fixture


class SlowLoop(asyncio.SelectorEventLoop):
    """A loop whose time goes on by a step with each look at it."""

    now = 0.0
    step = 1e-6
    looks = 0

    def time(self):
        self.looks += 1
        self.now += self.step
        return self.now


pytestmark = pytest.mark.loop(factory=SlowLoop)


@loop_fixture
async def loop():
    yield asyncio.get_running_loop()


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_spins_for_a_moment_and_no_longer(loop):
    spin = SpinWait(lambda: True)
    spin.start()
    await turns(5)
    assert spin.is_spinning
    await turns(100)
    assert not spin.is_spinning


async def test_it_does_not_spin_while_threads_have_work(loop):
    may = True
    spin = SpinWait(lambda: may)
    spin.start()
    may = False
    await turns(2)
    assert not spin.is_spinning
    spin.start()
    assert not spin.is_spinning


async def test_a_loop_that_is_put_aside_while_it_spins_backs_off(loop):
    spin = SpinWait(lambda: True)
    begun = 0
    loop.step = 15e-6  # what somebody else had of the core; the loop looks twice in a turn
    for _ in range(1000):
        spin.start()
        begun += spin.is_spinning
        await turns(4)
    assert begun < 20
    loop.step = 1e-6
    while not spin.backoff.should_wait():
        pass
    for _ in range(20):
        spin.start()
        await turns(2)
        assert spin.is_spinning, "the next message came while it did"


async def test_what_is_done_between_is_no_sign_of_others(loop):
    spin = SpinWait(lambda: True)
    for _ in range(20):
        spin.start()
        await turns(2)
        loop.now += 30e-6  # a message is handled
        spin.start()
        await turns(2)
    assert spin.backoff.should_wait()
