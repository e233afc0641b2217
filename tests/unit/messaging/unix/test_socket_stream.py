"""A connected socket on the loop, when there is no memory."""

import asyncio
import socket

from ostler.messaging.unix.socket_stream import SharedBuffers, SocketStream


async def test_a_connection_for_which_there_is_no_memory_is_given_up_and_no_other_is():
    near, far = socket.socketpair()
    other_near, other_far = socket.socketpair()
    ended, heard = asyncio.Event(), asyncio.Event()

    def starve(_data):
        raise MemoryError

    SocketStream(near, starve, ended.set, SharedBuffers())
    other = SocketStream(other_near, lambda _data: heard.set(), lambda: None, SharedBuffers())
    far.send(b"half of something")
    async with asyncio.timeout(5):
        await ended.wait()
    assert far.recv(1) == b"", "it is closed: what follows would be read as something else"
    other_far.send(b"x")
    async with asyncio.timeout(5):
        await heard.wait()
    other.close()
    far.close()
    other_far.close()
