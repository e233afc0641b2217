"""What the dispatcher does for those who look on: roles of a policy, secrets, traces, counters."""

import asyncio
import logging
import threading

import msgspec
import pytest

from ostler.errors import InternalError, InvalidInput, NotFound
from ostler.messaging import Context, exposed
from ostler.messaging.access.policy import Policy
from ostler.messaging.access.secret_arguments import SecretText
from ostler.messaging.access.tokens import new_secret
from ostler.messaging.wire.envelope import CAST, PROTOCOL_VERSION, Accepted, Failure, Reply, Request, encode_message
from ostler.messaging.wire.request_context import request_log_fields
from ostler.types import Peer

# private: _roles_by_user: a role that changes between two questions of one request

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
VIEWER = Peer(501, 501, 1, "uid 501")
CANARY = "hunter2-canary"


class Lamp:
    @exposed(role="viewer")
    async def look(self, ctx) -> str:
        return ctx.trace

    @exposed()
    async def switch(self, ctx, name: str = "") -> str:
        return name

    @exposed()
    async def unlock(self, ctx, how: str, code: SecretText) -> str:
        await asyncio.sleep(0)
        if how == "refuse":
            raise InvalidInput(f"{code} is wrong", hint=code, given=[code])
        if how == "raise":
            raise RuntimeError(code)
        return str(ctx.secrets)

    @exposed()
    def slowly(self, ctx) -> int:
        return self.endpoint.methods["slowly"].stats.in_flight


def request(method, arguments=None, *, number=1, trace="", flags=0):
    raw = msgspec.Raw(msgspec.msgpack.encode(arguments or {}))
    return encode_message(Request(PROTOCOL_VERSION, number, "lamp", method, raw, 30.0, "r-1", flags, trace=trace))


async def answered(bench, count=1):
    for _ in range(2000):
        if len(bench.answers()) >= count:
            return bench.answers()[-1]
        await asyncio.sleep(0.001)
    raise AssertionError("no answer")


async def test_a_policy_bites_at_once_and_for_connections_that_stand(bench, caplog) -> None:
    bench.access._roles_by_user[501, 501] = "viewer"
    bench.add("lamp", Lamp())
    bench.send(request("switch"), peer=VIEWER)
    assert isinstance(await answered(bench), Failure)
    caplog.set_level(logging.INFO)
    bench.dispatcher.registry.set_policy(Policy({"lamp.switch": "viewer", "lamp.look": "nobody"}))
    bench.send(request("switch", number=2), peer=VIEWER)
    assert isinstance(await answered(bench, 2), Reply)
    bench.send(request("look", number=3))
    refused = await answered(bench, 3)
    assert refused.names[0] == "ostler.NotPermitted"
    assert refused.message == "lamp.look is closed to everyone on this host"
    bench.dispatcher.registry.set_policy(Policy())
    bench.send(request("look", number=4), peer=VIEWER)
    assert isinstance(await answered(bench, 4), Reply)
    levels = {record.getMessage(): record.levelname for record in caplog.records if "[access" in record.getMessage()}
    assert levels == {
        "[access.methods] opens lamp.switch to the role viewer; its author requires operator": "WARNING",
        "[access.methods] restricts lamp.look to nobody instead of viewer": "INFO",
    }
    stats = bench.dispatcher.registry.find_method("lamp", "look").stats
    assert (stats.refused, stats.requests) == (1, 1)  # the counters outlive a policy


async def test_a_service_that_opens_later_gets_the_roles_in_force(bench) -> None:
    bench.dispatcher.registry.set_policy(Policy({"lamp.*": "admin"}))
    bench.add("lamp", Lamp())
    assert {row.role for row in bench.dispatcher.registry.describe("lamp")} == {"admin"}


@pytest.mark.parametrize("how", ["refuse", "raise"])
async def test_an_error_holds_nothing_of_a_secret_argument(bench, how, caplog) -> None:
    seen = []

    class Reader(logging.Handler):
        def emit(self, record):
            seen.append(request_log_fields())

    logging.getLogger("ostler").addHandler(reader := Reader())
    try:
        bench.add("lamp", Lamp())
        bench.send(request("unlock", {"how": how, "code": CANARY}))
        failure = await answered(bench)
        bench.send(request("unlock", {"how": how, "code": CANARY}, number=2, flags=CAST, trace=TRACE))
        assert isinstance(await answered(bench, 2), Accepted)
        await asyncio.sleep(0.01)
    finally:
        logging.getLogger("ostler").removeHandler(reader)
    assert CANARY not in str(failure)
    assert "***" in failure.message
    # Lines about it are lines of it: the log masks by what the request keeps secret.
    assert seen
    assert all(CANARY in about.secrets and about.fields["request_id"] == "r-1" for about in seen)
    assert seen[-1].fields["trace_id"] == TRACE[3:35]


async def test_a_token_in_the_details_of_an_error_is_hidden_without_any_other_secret(bench) -> None:
    token = new_secret()

    class Leaky:
        @exposed(role="viewer")
        async def look(self, ctx: Context) -> None:
            raise NotFound("no such lamp", headers={"authorization": [f"Bearer {token}"]})

    bench.add("lamp", Leaky())
    bench.send(request("look"))
    failure = await answered(bench)
    assert failure.details == {"headers": {"authorization": ["Bearer ***"]}}


@pytest.mark.parametrize(
    ("sent", "seen", "bad"), [(TRACE, TRACE, 0), ("", "", 0), ("rubbish", "", 1), (TRACE[:-1], "", 1)]
)
async def test_a_trace_is_checked_at_the_door_and_never_a_reason_to_refuse(bench, sent, seen, bad) -> None:
    bench.add("lamp", Lamp())
    bench.send(request("look", trace=sent))
    reply = await answered(bench)
    assert msgspec.msgpack.decode(reply.result) == seen
    assert bench.dispatcher.invalid_traces == bad


async def test_requests_in_flight_are_counted_for_each_method(bench) -> None:
    lamp = Lamp()
    bench.add("lamp", lamp)
    (lamp.endpoint,) = bench.dispatcher.endpoints()
    bench.send(request("slowly"))
    assert msgspec.msgpack.decode((await answered(bench)).result) == 1
    assert lamp.endpoint.methods["slowly"].stats.in_flight == 0


async def test_what_fails_before_it_begins_is_no_error_of_a_kind_that_is_not_ours(bench) -> None:
    class Audit:
        def __init__(self):
            self.seen = []

        def record(self, call, error):
            self.seen.append((call.request.method, type(error).__name__, call.is_admitted, call.is_started))

    bench.add("lamp", Lamp())
    bench.audit = audit = Audit()
    bench.send(request("nothing"))
    bench.send(request("switch", {"name": 3}, number=2))
    bench.send(request("switch", number=3))
    bench.send(request("unlock", {"how": "raise", "code": CANARY}, number=4))
    await answered(bench, 4)
    assert audit.seen == [
        ("nothing", "MethodNotFound", False, False),
        ("switch", "InvalidArguments", True, False),
        ("switch", "NoneType", True, True),
        ("unlock", InternalError.__name__, True, True),
    ]


@pytest.mark.parametrize(
    ("how", "ended"), [("wait", "Cancelled"), ("thread", None), ("thread raises", "InternalError")]
)
async def test_work_whose_caller_has_gone_is_still_told_to_those_who_look_on(bench, how, ended) -> None:
    class Slow:
        @exposed()
        async def wait(self, ctx) -> None:
            await asyncio.sleep(30)

        @exposed()
        def thread(self, ctx, fail: bool = False) -> None:
            gate.wait(10)
            if fail:
                raise RuntimeError("it was in vain")

    class Audit:
        def __init__(self):
            self.seen = []

        def record(self, call, error):
            self.seen.append((call.request.method, type(error).__name__ if error else None))

    gate = threading.Event()

    bench.add("lamp", Slow())
    bench.audit = audit = Audit()
    method, *more = how.split()
    bench.send(request(method, {"fail": True} if more else {}))
    await asyncio.sleep(0.01)
    bench.wire.gone.add("client")
    bench.server.send("client", b"a beat that cannot be delivered")
    gate.set()
    while not audit.seen:
        await asyncio.sleep(0.001)
    assert audit.seen == [(method, ended)]
