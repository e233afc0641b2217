"""Reading a ZeroMQ socket from the loop."""

import asyncio
import os

import pytest
import zmq

from ostler.messaging.tcp.socket_reader import SocketReader


class AlwaysReadable(zmq.Socket):
    """A socket whose descriptor says in each turn of the loop that something has come."""

    descriptor = -1

    def get(self, option):
        return self.descriptor if option == zmq.FD else super().get(option)


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_a_socket_that_is_never_empty_is_read_once_in_each_turn_of_the_loop():
    """Each wake-up by the descriptor began a chain of readings of its own, beside those there were: none ever ended."""

    with zmq.Context() as context:
        receiver, sender = AlwaysReadable(context, zmq.PULL), context.socket(zmq.PUSH)
        receiver.descriptor = os.eventfd(1)
        for each in (receiver, sender):
            each.set_hwm(0)
        receiver.bind("inproc://drain")
        sender.connect("inproc://drain")
        for _ in range(2000):
            sender.send(b"x")

        def take():
            receiver.recv(zmq.NOBLOCK)
            return True  # enough for this turn, and there is more

        drain, passes = SocketReader(receiver, take), []
        for _ in range(50):
            before = drain.pass_count
            await asyncio.sleep(0)
            passes.append(drain.pass_count - before)
        drain.close()
        os.close(receiver.descriptor)
        receiver.close()
        sender.close()
        assert set(passes[1:]) == {1}
