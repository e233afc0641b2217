from __future__ import annotations

import asyncio

from ostler.operations.deferral import DEFERRAL_TIME, Deferral


async def waiting(deferral, count):
    tasks = [asyncio.ensure_future(deferral.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_what_is_held_back_is_made_with_the_next_write():
    deferral = Deferral()
    tasks = await waiting(deferral, 2)
    assert not any(task.done() for task in tasks)
    assert deferral.release()
    await asyncio.sleep(0)
    assert all(task.done() for task in tasks)
    assert not deferral.release()


async def test_what_is_held_back_is_made_after_a_moment_by_itself():
    deferral = Deferral()
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*await waiting(deferral, 2))
    assert asyncio.get_running_loop().time() - began >= DEFERRAL_TIME * 0.9
    (task,) = await waiting(deferral, 1)
    assert not task.done()  # with a time of its own
    await task


async def test_what_was_cancelled_meanwhile_is_left_out():
    deferral = Deferral()
    first, second = await waiting(deferral, 2)
    first.cancel()
    deferral.release()
    await second
    assert first.cancelled()
