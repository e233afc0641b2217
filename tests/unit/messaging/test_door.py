import asyncio
import socket
from contextlib import ExitStack

import pytest
import zmq

from ostler.clock import FakeClock, SystemClock
from ostler.errors import Busy, NotPermitted
from ostler.messaging.zmq import ZmqTransport
from ostler.messaging.zmq.curve import Network, new_keys
from ostler.messaging.zmq.zap import REFUSED, Door
from support.waiting import until


class House:
    """A server at a port, with a door; clients have keys of their own."""

    def __init__(self, **options):
        self.server, self.friend = new_keys(), new_keys()
        names = {self.friend.public: "friend"}
        self.door = Door(options.pop("clock", SystemClock()), names=names, **options)
        network = Network(self.server, patience=1.0)
        self.transport = ZmqTransport("tcp://127.0.0.1:0", network=network, door=self.door)
        self.link = self.transport.serve_rpc()
        self.link.start(lambda client, data, peer: self.link.send(client, peer.name.encode()))
        self.clients = []

    async def ask(self, keys):
        """Return what the server answers, through a connection of its own that stays."""
        transport = ZmqTransport(self.link.address, network=Network(keys, self.server.public, patience=2.0))
        answer = asyncio.get_running_loop().create_future()
        link = transport.connect_async(answer.set_result, answer.set_exception)
        self.clients.append((link, transport))
        link.send(b"who am I?")
        return bytes(await asyncio.wait_for(answer, 5)).decode()

    async def leave(self, number):
        link, transport = self.clients.pop(number)
        link.close()
        await asyncio.to_thread(transport.close)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        while self.clients:
            await self.leave(0)
        self.link.close()
        await asyncio.to_thread(self.transport.close)


async def test_who_has_a_known_key_comes_in_under_its_name_and_nobody_else(caplog):
    async with House() as house:
        assert await house.ask(house.friend) == "key:friend"
        for _ in range(3):
            with pytest.raises(NotPermitted, match="does not know the key"):
                await house.ask(new_keys())
        # Who is refused may hear of it before the door hears that the connection is closed.
        await until(lambda: house.door.connections() == 1)
        assert house.door.stats() == {"connections": 1, "unknown_keys": 3, "too_many": 0, "cut": 0}
        house.door.admit_only({})
        with pytest.raises(NotPermitted):
            await house.ask(house.friend)
    assert len([record for record in caplog.records if "nobody here has the key" in record.message]) == 1


async def test_above_the_limit_a_connection_is_refused_until_one_has_gone(caplog):
    async with House(max_connections=4) as house:
        told = []
        house.door.on_refused = lambda peer, error: told.append((peer.name, type(error)))
        assert [await house.ask(house.friend) for _ in range(2)] == ["key:friend"] * 2
        for _ in range(2):
            with pytest.raises(Busy, match="as many connections as it takes"):
                await house.ask(house.friend)
        assert told == [("key:friend", Busy)] * 2
        while len(house.clients) > 1:
            await house.leave(0)
        await until(lambda: house.door.connections() < 2)
        assert await house.ask(house.friend) == "key:friend"
        assert house.door.stats()["too_many"] == 2
    assert len([record for record in caplog.records if "has 2 already, and 2 are free" in record.message]) == 1


async def test_connections_that_say_nothing_keep_nobody_out_and_do_not_pile_up():
    async with House(max_connections=32, clock=FakeClock()) as house:
        where = ("127.0.0.1", int(house.link.address.rpartition(":")[2]))
        with ExitStack() as silent:
            for _ in range(30):
                silent.enter_context(await asyncio.to_thread(socket.create_connection, where))
            await until(lambda: house.door.connections() == 30)
            assert await house.ask(house.friend) == "key:friend"
            for _ in range(70):
                silent.enter_context(await asyncio.to_thread(socket.create_connection, where))
            # One address gets half of the room; the oldest have to go, for who means to come in has done so.
            await until(lambda: house.door.full >= 100 - 48 and house.door.connections() <= 49)
            assert await house.ask(house.friend) == "key:friend"


async def test_a_question_that_is_none_is_let_be():
    async with House() as house:
        asking = house.transport._zmq().socket(zmq.DEALER)
        asking.linger = 0
        asking.connect("inproc://zeromq.zap.01")
        asking.send_multipart([b"", b"1.0"])
        asking.send(b"x")
        assert await house.ask(house.friend) == "key:friend"
        asking.close()


async def test_trap_a_client_with_the_routing_id_of_one_who_has_gone_is_still_itself():
    async with House() as house:
        eve, heard, gone = new_keys(), [], []
        house.door.admit_only({house.friend.public: "friend", eve.public: "eve"})
        house.link._receive = lambda client, data, peer: heard.append((client, peer.name))
        house.link.on_gone = gone.append

        def connect(keys, routing_id=b""):
            client = house.transport._zmq().socket(zmq.DEALER)
            client.linger = 0
            client.curve_publickey, client.curve_secretkey = keys.public.encode(), keys.secret.encode()
            client.curve_serverkey = house.server.public.encode()
            if routing_id:
                client.routing_id = routing_id
            client.connect(house.link.address)
            return client

        with connect(house.friend) as friend:
            friend.send(b"x")
            await until(lambda: heard)
        await until(lambda: not house.door.connections())
        with connect(eve, heard[0][0]) as client:
            for number in (2, 3):
                client.send(b"x")
                await until(lambda number=number: len(heard) == number)
        assert {client for client, _ in heard} == {heard[0][0]}
        assert [name for _, name in heard] == ["key:friend", "key:eve", "key:eve"]
        assert gone == [heard[0][0]]


async def test_who_proves_no_key_does_not_come_in():
    async with House() as house:
        assert house.door._decide("192.0.2.1", b"NULL", [])[0] == REFUSED
        assert house.door._decide("192.0.2.1", b"PLAIN", [b"friend", b""])[0] == REFUSED
