"""When the loop stays awake after a message."""

import asyncio

import pytest

from ostler.messaging.zmtp.spin import SpinWait


class SlowLoop(asyncio.SelectorEventLoop):
    """A loop whose time goes on by a step with each look at it."""

    now = 0.0
    step = 1e-6
    looks = 0

    def time(self):
        self.looks += 1
        self.now += self.step
        return self.now


@pytest.fixture
def on_slow_loop():
    def run(test):
        loop = SlowLoop()
        try:
            loop.run_until_complete(test(loop))
        finally:
            loop.close()

    return run


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


def test_it_spins_for_a_moment_and_no_longer(on_slow_loop):
    async def test(loop):
        spin = SpinWait(lambda: True)
        spin.begin()
        await turns(5)
        assert spin._spins
        await turns(100)
        assert not spin._spins

    on_slow_loop(test)


def test_it_does_not_spin_while_threads_have_work(on_slow_loop):
    async def test(loop):
        may = True
        spin = SpinWait(lambda: may)
        spin.begin()
        may = False
        await turns(2)
        assert not spin._spins
        spin.begin()
        assert not spin._spins

    on_slow_loop(test)


def test_a_loop_that_is_put_aside_while_it_spins_backs_off(on_slow_loop):
    async def test(loop):
        spin = SpinWait(lambda: True)
        begun = 0
        loop.step = 15e-6  # what somebody else had of the core; the loop looks twice in a turn
        for _ in range(1000):
            spin.begin()
            begun += spin._spins
            await turns(4)
        assert begun < 20
        loop.step = 1e-6
        while not spin.backoff.left():
            pass
        for _ in range(20):
            spin.begin()
            await turns(2)
            assert spin._spins, "the next message came while it did"

    on_slow_loop(test)


def test_what_is_done_between_is_no_sign_of_others(on_slow_loop):
    async def test(loop):
        spin = SpinWait(lambda: True)
        for _ in range(20):
            spin.begin()
            await turns(2)
            loop.now += 30e-6  # a message is handled
            spin.begin()
            await turns(2)
        assert spin.backoff.left()

    on_slow_loop(test)
