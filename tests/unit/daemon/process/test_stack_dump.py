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
