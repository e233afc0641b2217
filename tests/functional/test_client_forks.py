"""A client that is made before a fork and used in both processes."""

from __future__ import annotations

import asyncio
import json
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from daemon_process import DaemonProcess

from ostler import AsyncClient, Client, ConnectionLost, Retry

# private: _core: ids of requests, which no answer shows
# private: _lock: a fork at the moment when a thread is in a call

CONFIG = '[services.echo]\nmanager = "faulty_managers:EchoManager"\n'


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    return make_daemon(CONFIG).start()


def in_child(work: Callable[[], Any]) -> Callable[[], Any]:
    """Run something in a forked child; return what waits for its end and returns its result."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = work()
        except BaseException:
            result = traceback.format_exc()
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)

    def wait() -> Any:
        with os.fdopen(read) as text:
            said = text.read()
        os.waitpid(child, 0)
        return json.loads(said)

    return wait


def echoes(client: Client, name: str, count: int = 50) -> int:
    return sum(client.call("echo", "echo", text=f"{name}-{n}")["text"] != f"{name}-{n}" for n in range(count))


@pytest.mark.failure_mode("Processes", "a client that is used after a fork")
def test_nobody_is_handed_the_answer_of_another_process(daemon) -> None:
    with Client(root=str(daemon.root), timeout=10) as client:
        assert echoes(client, "warm", 1) == 0
        workers = [in_child(lambda n=n: echoes(client, f"worker {n}")) for n in range(4)]
        assert echoes(client, "parent") == 0
        assert [wait() for wait in workers] == [0] * 4
        assert echoes(client, "after") == 0


@pytest.mark.failure_mode("Processes", "a client that is used after a fork")
def test_request_ids_do_not_repeat_after_a_fork(daemon) -> None:
    client = Client(root=str(daemon.root), timeout=10, retry=Retry(attempts=3))
    for connected in (False, True):
        if connected:
            echoes(client, "parent", 1)
        ids = {client._core.new_id().partition("-")[0]}
        for _ in range(3):
            ids.add(in_child(lambda: (echoes(client, "child", 1), client._core.new_id().partition("-")[0])[1])())
        assert len(ids) == 4
        assert all(len(each) == 32 for each in ids)
    client.close()


def test_what_was_open_at_the_fork_is_the_parents(daemon) -> None:
    with Client(root=str(daemon.root), timeout=10) as client:
        stream = client.stream("echo", "ticks")
        items = iter(stream)
        assert next(items) == 0
        events = client.events("echo")

        def use() -> list[str]:
            said = []
            for step in (lambda: next(items), lambda: events.next(timeout=1)):
                with pytest.raises(ConnectionLost) as caught:
                    step()
                said.append(caught.value.reason)
            stream.close()
            events.close()
            client.close()
            return said

        assert in_child(use)() == ["fork", "fork"]
        assert next(items) == 1
        assert events.next(timeout=0.01) is None
        assert echoes(client, "parent", 1) == 0


def test_a_child_that_ends_within_a_call_of_the_parent_takes_nothing_back(daemon) -> None:
    # The lock of the client is held by this very thread at the fork, and a call is under way.
    with Client(root=str(daemon.root), timeout=10) as client:
        stream = iter(client.stream("echo", "ticks"))
        next(stream)
        with client._lock:
            assert in_child(lambda: echoes(client, "child", 3))() == 0
        assert next(stream) == 1


async def test_an_async_client_connects_anew_on_the_loop_of_the_child(daemon) -> None:
    async def echo(client: AsyncClient, text: str) -> str:
        answer = await client.call("echo", "echo_async", text=text)
        return str(answer["text"])

    async with AsyncClient(root=str(daemon.root), timeout=10) as client:
        assert await echo(client, "before") == "before"
        under_way = asyncio.ensure_future(echo(client, "under way"))
        events = await client.events("echo")
        await asyncio.sleep(0)

        async def use() -> str:
            said = await echo(client, "child")
            events.close()
            await client.close()
            return said

        wait = in_child(lambda: asyncio.run(use()))
        assert await under_way == "under way"
        assert await asyncio.to_thread(wait) == "child"
        assert await echo(client, "after") == "after"
