import asyncio
import socket
from contextlib import ExitStack

import pytest
import zmq

from ostler.clock import FakeClock, SystemClock
from ostler.errors import Busy, NotPermitted
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.tcp.authenticator import ZAP_DENIED, Authenticator
from ostler.messaging.tcp.curve import CurveOptions, generate_keys
from support.links import RecordingHandler
from support.waiting import until

# private: _authenticate: questions that libzmq does not ask about a socket with CURVE


class House:
    """A server at a port, with a door; clients have keys of their own."""

    def __init__(self, **options):
        self.server, self.friend = generate_keys(), generate_keys()
        names = {self.friend.public: "friend"}
        self.refused = []
        self.authenticator = Authenticator(
            options.pop("clock", SystemClock()),
            key_names=names,
            on_refused=lambda peer, error: self.refused.append((peer.name, type(error))),
            **options,
        )
        network = CurveOptions(self.server, connect_timeout=1.0)
        self.context = zmq.Context()
        self.transport = SocketTransport(
            "tcp://127.0.0.1:0", curve=network, authenticator=self.authenticator, context=self.context
        )
        self.link = self.transport.serve_rpc()
        self.handler = RecordingHandler(lambda client, data, peer: self.link.send(client, peer.name.encode()))
        self.link.start(self.handler)
        self.clients = []

    async def ask(self, keys):
        """Return what the server answers, through a connection of its own that stays."""
        transport = SocketTransport(
            self.link.address, curve=CurveOptions(keys, self.server.public, connect_timeout=2.0)
        )
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
        self.context.destroy(linger=0)


async def test_who_has_a_known_key_comes_in_under_its_name_and_nobody_else(caplog):
    async with House() as house:
        assert await house.ask(house.friend) == "key:friend"
        for _ in range(3):
            with pytest.raises(NotPermitted, match="does not know the key"):
                await house.ask(generate_keys())
        # Who is refused may hear of it before the door hears that the connection is closed.
        await until(lambda: house.authenticator.connection_count() == 1)
        assert house.authenticator.stats() == {"connections": 1, "unknown_keys": 3, "too_many": 0, "cut": 0}
        house.authenticator.set_authorised_keys({})
        with pytest.raises(NotPermitted):
            await house.ask(house.friend)
    assert len([record for record in caplog.records if "unknown key" in record.message]) == 1


async def test_above_the_limit_a_connection_is_refused_until_one_has_gone(caplog):
    async with House(max_connections=4) as house:
        assert [await house.ask(house.friend) for _ in range(2)] == ["key:friend"] * 2
        for _ in range(2):
            with pytest.raises(Busy, match="has reached its limit of connections"):
                await house.ask(house.friend)
        assert house.refused == [("key:friend", Busy)] * 2
        while len(house.clients) > 1:
            await house.leave(0)
        await until(lambda: house.authenticator.connection_count() < 2)
        assert await house.ask(house.friend) == "key:friend"
        assert house.authenticator.stats()["too_many"] == 2
    assert len([record for record in caplog.records if "already has 2, and 2 are free" in record.message]) == 1


async def test_connections_that_say_nothing_keep_nobody_out_and_do_not_pile_up():
    async with House(max_connections=32, clock=FakeClock()) as house:
        where = ("127.0.0.1", int(house.link.address.rpartition(":")[2]))
        with ExitStack() as silent:
            for _ in range(30):
                silent.enter_context(await asyncio.to_thread(socket.create_connection, where))
            await until(lambda: house.authenticator.connection_count() == 30)
            assert await house.ask(house.friend) == "key:friend"
            for _ in range(70):
                silent.enter_context(await asyncio.to_thread(socket.create_connection, where))
            # One address gets half of the room; the oldest have to go, for who means to come in has done so.
            await until(
                lambda: house.authenticator.busy_count >= 100 - 48 and house.authenticator.connection_count() <= 49
            )
            assert await house.ask(house.friend) == "key:friend"


async def test_a_question_that_is_none_is_let_be():
    async with House() as house:
        asking = house.context.socket(zmq.DEALER)
        asking.linger = 0
        asking.connect("inproc://zeromq.zap.01")
        asking.send_multipart([b"", b"1.0"])
        asking.send(b"x")
        assert await house.ask(house.friend) == "key:friend"
        asking.close()


async def test_a_client_with_the_routing_id_of_one_who_has_gone_is_still_itself():
    async with House() as house:
        eve, heard, gone = generate_keys(), [], house.handler.gone
        house.authenticator.set_authorised_keys({house.friend.public: "friend", eve.public: "eve"})
        house.handler.receive = lambda client, data, peer: heard.append((client, peer.name))

        def connect(keys, routing_id=b""):
            client = house.context.socket(zmq.DEALER)
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
        await until(lambda: not house.authenticator.connection_count())
        with connect(eve, heard[0][0]) as client:
            for number in (2, 3):
                client.send(b"x")
                await until(lambda number=number: len(heard) == number)
        assert {client for client, _ in heard} == {heard[0][0]}
        assert [name for _, name in heard] == ["key:friend", "key:eve", "key:eve"]
        assert gone == [heard[0][0]]


async def test_who_proves_no_key_does_not_come_in():
    async with House() as house:
        assert house.authenticator._authenticate("192.0.2.1", b"NULL", [])[0] == ZAP_DENIED
        assert house.authenticator._authenticate("192.0.2.1", b"PLAIN", [b"friend", b""])[0] == ZAP_DENIED
