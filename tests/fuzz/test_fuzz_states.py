"""The states of the protocol against a model: what each message must lead to, whatever came before it."""

import asyncio
from collections import Counter

import pytest
from defect_watch import DefectWatch
from fuzzed_service import BlockingService, FuzzedService
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from mutator import encode
from server_target import PEERS, FakeServerLink

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import FakeClock
from ostler.messaging import Access, Dispatcher, Endpoint, RpcServer
from ostler.messaging.rpc.rpc_server import ServerLimits
from ostler.messaging.wire.envelope import (
    CAST,
    FANOUT,
    RETRY,
    STREAM,
    Accepted,
    Failure,
    Items,
    Reply,
    decode_to_client,
)

# private: _calls, _in_flight, _keepalives_due: the state is compared with that of the model

CLIENTS = st.sampled_from(["a", "b"])
NUMBERS = st.integers(0, 3)
MOST_HERE = 6


class RecordingLink(FakeServerLink):
    """A link that counts the ends of requests and the items of streams."""

    def __init__(self):
        super().__init__()
        self.ends = Counter()
        self.items = Counter()

    def take(self, client, data):
        if client in self.gone:
            return False
        answer = decode_to_client(data)
        if type(answer) in (Reply, Failure, Accepted):
            self.ends[client, answer.id] += 1
        elif type(answer) is Items:
            assert answer.first == self.items[client, answer.id], "items are in order, none is missing"
            self.items[client, answer.id] += bytes(answer.items)[2] + 256 * bytes(answer.items)[1]
        return True


class ProtocolStateMachine(RuleBasedStateMachine):
    """A server with two clients; `live` is what each waits for, `ends` how many ends each must have had."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.watch = DefectWatch().__enter__()
        self.live = {}
        self.ends = Counter()
        self.garbage = Counter()
        self.stray = Counter()
        self.kept = {}
        self.casts = 0
        self.names = {"a": "a", "b": "b"}
        self.honest = 100
        self.runner.run(self._begin())

    async def _begin(self):
        self.watch.on_loop(asyncio.get_running_loop())
        inbox = LoopQueue(asyncio.get_running_loop())
        self.dispatcher = Dispatcher(Access(own_uid=0), FakeClock(), inbox, host="here")
        self.wire, self.slow, self.pool = RecordingLink(), BlockingService(), WorkerPool("states", 1)
        self.server = RpcServer(
            self.wire, self.dispatcher, inbox, limits=ServerLimits(max_in_flight_per_peer=MOST_HERE)
        )
        self.dispatcher.registry.add_endpoint(Endpoint("shop", "here", FuzzedService(), self.pool))
        self.dispatcher.registry.add_endpoint(Endpoint("slow", "here", self.slow, self.pool))
        self.server.start()

    def send(self, client, *fields):
        self.raw(client, encode(list(fields)))

    def raw(self, client, data):
        async def turn():
            asyncio.get_running_loop().call_soon(self.server.on_message, self.names[client], data, PEERS[0])
            await self.settle()

        self.runner.run(turn())

    async def settle(self):
        for _ in range(6):
            await asyncio.sleep(0)
        while self.pool.in_flight_numbers():
            await asyncio.sleep(0.0002)
        for _ in range(6):
            await asyncio.sleep(0)
        self.dispatcher.thread_replies.collect()  # which the loop does by itself a moment later

    def place(self, client, number):
        return self.names[client], number

    def busy(self, client, number):
        """Take note of a request that is refused before it is looked at; return whether that is so."""
        if self.place(client, number) in self.live:
            self.garbage["duplicate"] += 1
            return True
        if sum(name == self.names[client] for name, _ in self.live) >= MOST_HERE:
            self.ends[self.place(client, number)] += 1
            return True
        return False

    @rule(client=CLIENTS, number=NUMBERS, text=st.one_of(st.just("x"), st.integers(-5, 5), st.none()))
    def call(self, client, number, text):
        self.ends[self.place(client, number)] += not self.busy(client, number)
        self.send(client, 1, 1, number, "shop", "echo", {"text": text})

    @rule(client=CLIENTS, number=NUMBERS)
    def call_in_pool(self, client, number):
        self.ends[self.place(client, number)] += not self.busy(client, number)
        self.send(client, 1, 1, number, "shop", "quick", {})

    @rule(client=CLIENTS, number=NUMBERS)
    def call_that_waits(self, client, number):
        if not self.busy(client, number):
            self.live[self.place(client, number)] = "call"
        self.send(client, 1, 1, number, "slow", "hold", {})

    @rule(client=CLIENTS, number=NUMBERS, request_id=st.sampled_from(["r1", "r2"]))
    def call_that_may_come_again(self, client, number, request_id):
        place = self.place(client, number)
        if not self.busy(client, number):
            before = self.kept.get(request_id)
            if before == "done":
                self.ends[place] += 1
            else:
                if before in self.live:
                    del self.live[before]  # its place is taken; it hears no more
                self.kept[request_id] = place
                self.live[place] = request_id
        self.send(client, 1, 1, number, "slow", "hold", {}, None, request_id, RETRY)

    @rule(client=CLIENTS, number=NUMBERS, flags=st.sampled_from([CAST, CAST | FANOUT]))
    def cast_that_waits(self, client, number, flags):
        self.ends[self.place(client, number)] += not (refused := self.busy(client, number))
        # All clients here are one user's process, and so share what one may cast.
        self.casts += not refused and self.casts < MOST_HERE
        self.send(client, 1, 1, number, "slow", "hold", {"text": "cast"}, None, "", flags)

    @rule()
    def what_was_cast_ends(self):
        self.casts = 0

        async def end():
            self.slow.release_one("cast")
            await self.settle()

        self.runner.run(end())

    @rule(client=CLIENTS, number=NUMBERS, items=st.integers(0, 30), credit=st.integers(0, 20), here=st.booleans())
    def stream(self, client, number, items, credit, here):
        place = self.place(client, number)
        if not self.busy(client, number):
            self.wire.items[place] = 0
            self.live[place] = [items, credit]
            self._stream_ends(place)
        method = "acount" if here else "count"
        self.send(client, 1, 1, number, "slow", method, {"items": items}, None, "", STREAM, "", "", "", credit)

    def _stream_ends(self, place):
        items, credit = self.live[place]
        if credit > items:
            del self.live[place]
            self.ends[place] += 1

    @rule(client=CLIENTS, number=NUMBERS, more=st.integers(0, 20))
    def credit(self, client, number, more):
        place = self.place(client, number)
        if isinstance(self.live.get(place), list):
            self.live[place][1] += more
            self._stream_ends(place)
        else:
            self.stray["credit"] += 1
        self.send(client, 3, 1, number, more)

    @rule(client=CLIENTS, number=NUMBERS)
    def cancel(self, client, number):
        found = self.live.pop(self.place(client, number), None)
        if found is None:
            self.stray["cancel"] += 1
        else:
            self.ends[self.place(client, number)] += 1
            if isinstance(found, str) and found in self.kept:
                self.kept[found] = "done"
        self.send(client, 2, 1, number)

    @rule(client=CLIENTS, number=NUMBERS, kind=st.sampled_from([10, 15, 9]), version=st.sampled_from([1, 2]))
    def garbage_with_a_number(self, client, number, kind, version):
        self.ends[self.place(client, number)] += 1
        self.garbage["kind" if kind >= 10 else "version" if version == 2 else "shape"] += 1
        self.send(client, kind, version, number)

    @rule(client=CLIENTS, data=st.sampled_from([b"", b"\xc1", b"\x91", b"\xdd\xff\xff\xff\xff", b"\x91" * 2000]))
    def garbage_without(self, client, data):
        self.garbage["msgpack" if data else "empty"] += 1
        self.raw(client, data)

    @rule(client=CLIENTS)
    def the_connection_ends(self, client):
        name = self.names[client]
        self.wire.gone.add(name)
        self.live = {place: what for place, what in self.live.items() if place[0] != name}
        self.names[client] += "'"

        async def end():
            self.server.on_client_gone(name)
            await self.settle()

        self.runner.run(end())

    @rule()
    def all_is_let_go(self):
        for place, found in list(self.live.items()):
            if not isinstance(found, list):
                del self.live[place]
                self.ends[place] += 1
        self.kept = dict.fromkeys(self.kept, "done")
        self.casts = 0

        async def end():
            self.slow.release_all()
            self.slow.block_again()
            await self.settle()

        self.runner.run(end())

    @invariant()
    def each_request_had_the_ends_that_it_must_have(self):
        here = {place: count for place, count in self.ends.items() if count and place[0] not in self.wire.gone}
        found = {place: count for place, count in self.wire.ends.items() if place[0] in here_names(self)}
        assert found == here

    @invariant()
    def what_is_open_has_all_the_items_that_it_has_credit_for(self):
        for place, found in self.live.items():
            if isinstance(found, list):
                assert self.wire.items[place] == min(found)

    @invariant()
    def nothing_else_is_registered_and_all_is_counted(self):
        calls = self.server._calls
        assert {(name, number) for name, mine in calls.items() for number in mine} == set(self.live)
        assert self.server._keepalives_due.keys() == calls.keys()
        assert self.server.invalid_messages == +self.garbage
        assert self.server.late_messages == +self.stray
        orphans = sum(place != "done" and place not in self.live for place in self.kept.values())
        assert len(self.dispatcher._in_flight) == len(self.live) + self.casts + orphans

    @invariant()
    def others_get_theirs(self):
        self.honest += 1

        async def call():
            data = encode([1, 1, self.honest, "shop", "echo", {"text": "well"}])
            asyncio.get_running_loop().call_soon(self.server.on_message, "honest", data, PEERS[0])
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        self.runner.run(call())
        assert self.wire.ends.pop(("honest", self.honest)) == 1
        self.watch.check()

    def teardown(self):
        async def end():
            self.slow.release_all()
            self.dispatcher.close()
            self.server.close()
            self.pool.close()
            await asyncio.to_thread(self.pool.join, 5)
            await asyncio.sleep(0)

        self.runner.run(end())
        self.runner.close()
        self.watch.__exit__()
        self.watch.check()


def here_names(machine):
    return set(machine.names.values())


TestProtocol = ProtocolStateMachine.TestCase
TestProtocol.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestProtocol = pytest.mark.timeout(400)(TestProtocol)  # a failure is made small first, which takes a while
