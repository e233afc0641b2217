import asyncio
import functools
import os
import shutil
import stat

import pytest

from ostler.aio import LoopQueue
from ostler.clock import SystemClock
from ostler.config import load_text, validate
from ostler.config.paths import Paths
from ostler.daemon.connectivity.messaging_stack import MessagingStack, make_socket_transport
from ostler.errors import Conflict
from ostler.messaging import AsyncClient, Context, exposed
from ostler.messaging.unix.bind import BoundUnixSocket


def on_a_loop(test):
    """Run a test that is a coroutine."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


class Control:
    rpc_version = "1.0"

    @exposed(role="viewer", changes=False)
    async def echo(self, ctx: Context, text: str = "") -> str:
        return text


@pytest.fixture
def paths(tmp_path):
    found = Paths.find(str(tmp_path), {})
    found.runtime_dir.mkdir(parents=True)
    return found


def started(paths, fds=None):
    options = validate(load_text('[messaging]\nsocket_mode = "0640"\n'), {}, {})
    transport = make_socket_transport(paths, options, fds or {})
    messages = MessagingStack(options, transport, SystemClock(), LoopQueue(asyncio.get_running_loop()))
    messages.start(Control())
    return messages


async def answered(paths):
    async with AsyncClient(paths.rpc_address, timeout=5) as client:
        return await client.call("ostler", "echo", text="x") == "x"


def remove(paths):
    paths.rpc_socket.unlink()
    paths.events_socket.unlink()


def remove_folder(paths):
    shutil.rmtree(paths.runtime_dir)


def replace_by_dead_ones(paths):
    remove(paths)
    for path in (paths.rpc_socket, paths.events_socket):
        os.close(BoundUnixSocket(path, 0o600).detach())


@pytest.mark.failure_mode("Machine", "sockets that are removed while the daemon runs")
@pytest.mark.parametrize("sweep", [remove, remove_folder, replace_by_dead_ones])
@on_a_loop
async def test_sockets_that_are_swept_away_are_bound_again_and_it_is_said(paths, caplog, sweep):
    messages = started(paths)
    async with AsyncClient(paths.rpc_address, timeout=5) as before:
        await before.call("ostler", "echo", text="x")
        sweep(paths)
        await messages.self_check()
        assert await before.call("ostler", "echo", text="still") == "still"
    assert await answered(paths)
    assert stat.S_IMODE(paths.rpc_socket.stat().st_mode) == 0o640
    assert stat.S_IMODE(paths.events_socket.stat().st_mode) == 0o640
    assert "bound again" in caplog.text
    assert "bound again" in messages.problems()[0]
    await messages.close()
    assert not paths.rpc_socket.exists()


@pytest.mark.failure_mode("Machine", "sockets that are removed while the daemon runs")
@on_a_loop
async def test_a_socket_of_somebody_else_is_not_taken_over(paths, caplog):
    messages = started(paths)
    remove(paths)
    other = BoundUnixSocket(paths.rpc_socket, 0o600)
    listening = other.detach()
    with pytest.raises(Conflict, match="another daemon already listens"):
        await messages.self_check()
    assert other.is_in_place()
    assert "clients cannot connect" in messages.problems()[0]
    other.unlink()
    os.close(listening)
    await messages.self_check()
    assert await answered(paths)
    await messages.close()


@pytest.mark.failure_mode("Machine", "sockets that are removed while the daemon runs")
@on_a_loop
async def test_sockets_of_systemd_swept_away_are_bound_again_with_their_mode(paths):
    fds = {}
    for name, path in (("rpc", paths.rpc_socket), ("events", paths.events_socket)):
        fds[name] = BoundUnixSocket(path, 0o660).detach()
    messages = started(paths, fds)
    await messages.self_check()
    remove(paths)
    await messages.self_check()
    assert await answered(paths)
    assert stat.S_IMODE(paths.rpc_socket.stat().st_mode) == 0o660
    await messages.close()
