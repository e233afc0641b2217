import asyncio
import threading

from ostler.daemon.process.stack_dump import format_dump, task_stacks, thread_stacks


def test_every_thread_is_there_by_name_with_where_it_stands() -> None:
    gate, inside = threading.Event(), threading.Event()

    def waiting_for_the_gate() -> None:
        inside.set()
        gate.wait()

    thread = threading.Thread(target=waiting_for_the_gate, name="lamp-1")
    thread.start()
    inside.wait()
    try:
        (stack,) = [stack for name, stack in thread_stacks().items() if name.startswith("lamp-1 ")]
    finally:
        gate.set()
        thread.join()
    assert any("waiting_for_the_gate" in line for line in stack)


async def test_every_task_is_there_by_name_with_where_it_waits() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(waits(), name="report state")
    await asyncio.sleep(0)
    assert "waits" in task_stacks()["report state"][0]
    task.cancel()


def test_a_dump_for_people_is_indented() -> None:
    assert format_dump({"a": {"b": ["x", "y"]}, "c": 1}) == "a:\n  b:\n    x\n    y\nc: 1"


async def test_a_task_is_shown_with_what_it_awaits_and_two_of_a_name_both():
    async def inner():
        await asyncio.sleep(3600)

    async def outer():
        await inner()

    tasks = [asyncio.create_task(outer(), name="twice") for _ in range(2)]
    await asyncio.sleep(0)
    found = [stack for name, stack in task_stacks().items() if name.startswith("twice")]
    for task in tasks:
        task.cancel()
    assert [[line.rpartition(" ")[2] for line in stack] for stack in found] == [["outer", "inner", "sleep"]] * 2


async def test_of_very_many_tasks_some_are_shown():
    tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(20)]
    await asyncio.sleep(0)
    found = task_stacks(limit=5)
    for task in tasks:
        task.cancel()
    assert len(found) == 6
    assert found["(others)"] == ["16 more tasks"]
