"""Callers that come by the gateway: who they are, and what their requests do on a loop that is not the daemon's."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest

from ostler import (
    Caller,
    ConnectionLost,
    Context,
    DaemonNotRunning,
    DeadlineExceeded,
    Durable,
    Gap,
    Gateway,
    InvalidInput,
    Manager,
    NotPermitted,
    Role,
    ServiceNotFound,
    exposed,
    fork,
)
from ostler.testing import host
from ostler.types import Peer

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Shop(Manager):
    journal_events = True

    def init_host(self, service_id, added_to_cluster):
        self.begun, self.ended, self.go_on = threading.Event(), threading.Event(), threading.Event()
        self.runs, self.made = 0, 0

    @exposed(role="viewer", changes=False)
    async def who(self, ctx: Context) -> list[str]:
        """Return who asks, and for what."""
        return [ctx.peer.name, str(ctx.role), ctx.request_id, ctx.trace]

    @exposed(role="operator")
    def run(self, ctx: Context, count: int = 1) -> int:
        """Run in a thread."""
        self.runs += count
        ctx.progress(1, 2, "half")
        return self.runs

    @exposed(role="operator", durable=Durable(on_restart="resume"))
    def work(self, ctx: Context) -> int:
        """Run as an operation."""
        self.runs += 1
        return self.runs

    @exposed(role="viewer")
    async def wait(self, ctx: Context) -> None:
        """Wait until it is cancelled."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    @exposed(role="viewer", changes=False)
    async def items(self, ctx: Context, count: int) -> AsyncIterator[int]:
        """Yield numbers."""
        try:
            for number in range(count):
                self.made += 1
                yield number
        finally:
            self.ended.set()

    @exposed(role="viewer", changes=False)
    def lines(self, ctx: Context, count: int) -> Iterator[str]:
        """Yield texts, in a thread."""
        yield from map(str, range(count))

    @exposed(role="operator")
    async def tell(self, ctx: Context, topic: str = "shop") -> None:
        """Publish an event."""
        self.client.publish("told", None, topic=topic)


@pytest.fixture
def shop_host():
    with host(managers={"shop": Shop}, config='[services.shop]\nmanager = "shop"') as made:
        yield made


def client_of(made, role="operator"):
    return made.gateway.client(made.caller(role))


async def test_a_request_has_the_name_the_role_the_id_and_the_trace_of_its_caller(shop_host):
    found = await client_of(shop_host).call("shop", "who", {}, request_id="r1", trace=TRACE)
    assert found == ["token:test-operator", "operator", "r1", TRACE]


async def test_a_trace_that_is_not_valid_is_ignored(shop_host):
    assert (await client_of(shop_host).call("shop", "who", trace="nonsense"))[3] == ""


async def test_the_dispatcher_decides_what_a_caller_may_do(shop_host):
    with pytest.raises(NotPermitted, match="needs the role operator, token:test-viewer has viewer") as refused:
        await client_of(shop_host, "viewer").call("shop", "run")
    assert "ostler token new" in refused.value.hint
    with pytest.raises(NotPermitted, match="anonymous has no role here"):
        await shop_host.gateway.client(shop_host.gateway.anonymous).call("shop", "who")


async def test_a_caller_cannot_give_itself_a_role(shop_host):
    forged = Caller("token:nobody", Role.ADMIN, Peer(name="token:nobody", principal="token:nobody"))
    with pytest.raises(NotPermitted, match="token:nobody has no role here"):
        await shop_host.gateway.client(forged).call("shop", "who")


async def test_a_token_says_who_a_caller_is(shop_host):
    caller = shop_host.gateway.caller_of_token(shop_host.token("viewer"))
    assert (caller.name, caller.role, caller.peer.account) == ("token:test-viewer", Role.VIEWER, "token:test-viewer")
    for wrong in ("", "ostk_wrong", "x" * 10_000, "\udc80\x00"):
        with pytest.raises(NotPermitted, match="not known here, or was revoked"):
            shop_host.gateway.caller_of_token(wrong)


async def test_a_user_and_a_certificate_say_who_a_caller_is(shop_host):
    root, nobody = shop_host.gateway.caller_of_user(0, 0, 12), shop_host.gateway.caller_of_user(54321, 54321, 12)
    assert (root.role, root.peer.pid) == (Role.ADMIN, 12)
    assert (nobody.name, nobody.role) == ("uid 54321", None)
    assert shop_host.gateway.caller_of_certificate("alice").role is None
    for wrong in ("", "a" * 256, "a\nb"):
        with pytest.raises(NotPermitted, match="no caller can have"):
            shop_host.gateway.caller_of_certificate(wrong)


async def test_progress_comes_on_the_loop_of_the_caller(shop_host):
    told = []
    threads = []
    await client_of(shop_host).call(
        "shop", "run", on_progress=lambda progress: (told.append(progress.text), threads.append(threading.get_ident()))
    )
    assert (told, threads) == (["half"], [threading.get_ident()])


async def test_cast_fanout_and_submit(shop_host):
    client = client_of(shop_host)
    assert await client.cast("shop", "run") == 1
    assert await client.fanout("shop", "run") == 1
    assert await client.submit("shop", "work", {}, request_id="job-1") == "job-1"
    assert await client.submit("shop", "work", {}, request_id="job-1") == "job-1"
    assert len(await client.submit("shop", "work")) == 32
    shop_host.wait_for(lambda: shop_host.manager("shop").runs == 4, "two casts and two operations")


async def test_a_request_that_was_made_before_is_not_run_again(shop_host):
    client = client_of(shop_host)
    found = [await client.call("shop", "run", {}, request_id="once", deduplicate=True) for _ in range(3)]
    assert found == [1, 1, 1]
    other = client_of(shop_host, "admin")
    assert await other.call("shop", "run", {}, request_id="once", deduplicate=True) == 2, "ids are a caller's own"
    with pytest.raises(InvalidInput, match="by its id, but it has none"):
        await client.call("shop", "run", deduplicate=True)
    with pytest.raises(InvalidInput, match="256 characters"):
        await client.call("shop", "run", request_id="x" * 256)


async def test_the_same_id_without_deduplication_is_a_label(shop_host):
    client = client_of(shop_host)
    assert [await client.call("shop", "run", {}, request_id="label") for _ in range(2)] == [1, 2]


async def test_texts_may_stand_for_numbers_where_that_is_wanted(shop_host):
    assert await client_of(shop_host).call("shop", "run", {"count": "3"}, lenient=True) == 3


async def test_an_error_of_the_daemon_is_that_of_the_await(shop_host):
    with pytest.raises(ServiceNotFound):
        await client_of(shop_host).call("nowhere", "who")
    with pytest.raises(DeadlineExceeded):
        await client_of(shop_host).call("shop", "wait", timeout=0.05)


async def test_cancelling_the_await_cancels_the_request(shop_host):
    shop = shop_host.manager("shop")
    waiting = asyncio.ensure_future(client_of(shop_host).call("shop", "wait"))
    await asyncio.to_thread(shop.begun.wait, 10)
    waiting.cancel()
    assert await asyncio.to_thread(shop.ended.wait, 10)


async def test_a_stream_makes_no_more_than_its_reader_takes(shop_host):
    shop = shop_host.manager("shop")
    stream = client_of(shop_host).stream("shop", "items", {"count": 1000}, credit=4)
    assert [await anext(stream) for _ in range(2)] == [0, 1]
    assert await client_of(shop_host).call("shop", "who")  # what it would have made by now, it has made
    assert shop.made <= 8
    await stream.aclose()
    assert await asyncio.to_thread(shop.ended.wait, 10)


@pytest.mark.parametrize("method", ["items", "lines"])
async def test_a_long_stream_comes_whole(shop_host, method):
    found = [int(item) async for item in client_of(shop_host).stream("shop", method, {"count": 20_000})]
    assert found == list(range(20_000))


async def test_a_stream_that_is_refused_says_so_with_the_first_item(shop_host):
    anonymous = shop_host.gateway.client(shop_host.gateway.anonymous)
    with pytest.raises(NotPermitted):
        await anext(anonymous.stream("shop", "items", {"count": 1}))


async def test_a_subscription_stands_when_it_was_awaited(shop_host):
    client = client_of(shop_host)
    events = await client.subscribe("shop")
    await client.call("shop", "tell", {}, request_id="r7")
    event = await anext(events)
    assert (event.key, event.request_id) == ("shop.testhost.told", "r7")
    await events.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_a_subscription_needs_a_role(shop_host):
    with pytest.raises(NotPermitted, match="anonymous has no role here"):
        await shop_host.gateway.client(shop_host.gateway.anonymous).subscribe("shop")


async def test_a_subscription_goes_on_after_the_last_event_that_was_seen(shop_host):
    client = client_of(shop_host)
    events = await client.subscribe("shop")
    for number in (1, 2, 3):
        await client.call("shop", "tell")
        assert (await anext(events)).sequence == number
    await events.aclose()
    events = await client.subscribe("shop", since={"shop": 1})
    assert [(await anext(events)).sequence for _ in range(2)] == [2, 3]
    await client.call("shop", "tell")
    assert (await anext(events)).sequence == 4
    await events.aclose()


async def test_what_no_journal_has_is_a_gap(shop_host):
    client = client_of(shop_host)
    for _ in range(3):
        await client.call("shop", "tell", {"topic": "news"})
    events = await client.subscribe("news", since={"news": 1, "elsewhere": 5})
    assert await anext(events) == Gap("news", "testhost", 2, 3)
    await events.aclose()
    events = await client.subscribe("news", since={"news": 9})
    assert await anext(events) == Gap("news", "testhost", 0, 0), "the publisher has started again since"
    await events.aclose()


async def test_a_position_has_to_be_a_number(shop_host):
    with pytest.raises(InvalidInput, match="it must be 0 or more"):
        client_of(shop_host).subscribe("shop", since={"shop": -1})


async def test_a_role_that_is_lost_ends_what_is_in_progress(shop_host):
    shop = shop_host.manager("shop")
    client = client_of(shop_host, "viewer")
    waiting = asyncio.ensure_future(client.call("shop", "wait"))
    events = await client.subscribe("shop")
    await asyncio.to_thread(shop.begun.wait, 10)
    shop_host.revoke("viewer")
    with pytest.raises(NotPermitted, match="has no role here"):
        await waiting
    assert await asyncio.to_thread(shop.ended.wait, 10)
    with pytest.raises(NotPermitted, match="has no role here any more"):
        await anext(events)
    with pytest.raises(NotPermitted):
        await client.call("shop", "who")


def test_a_loop_that_was_closed_leaves_nothing(shop_host):
    shop, client = shop_host.manager("shop"), client_of(shop_host)
    other = asyncio.new_event_loop()

    async def leave() -> None:
        await client.subscribe("shop")
        asyncio.ensure_future(client.call("shop", "wait"))  # noqa: RUF006 - nobody waits for it, that is the case
        await asyncio.to_thread(shop.begun.wait, 10)

    other.run_until_complete(leave())
    other.run_until_complete(other.shutdown_default_executor())
    other.close()
    assert shop.ended.wait(10), "the daemon notices with the next keepalive"


def test_two_loops_have_the_same_caller_at_the_same_time(shop_host):
    client = client_of(shop_host)
    found = []

    async def ask() -> None:
        found.extend(await asyncio.gather(*(client.call("shop", "who") for _ in range(50))))

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [who[0] for who in found] == ["token:test-operator"] * 100


def test_the_loop_of_the_daemon_may_use_it_too(shop_host):
    assert shop_host.run(client_of(shop_host).call("shop", "who"))[1] == "operator"


async def test_a_forked_child_is_refused(shop_host, monkeypatch):
    client = client_of(shop_host)
    monkeypatch.setattr(fork, "in_child", True)  # as in a child: a real one would share the sockets of this test's loop
    with pytest.raises(RuntimeError, match="this process was forked from it"):
        await client.call("shop", "who")
    with pytest.raises(RuntimeError, match="this process was forked from it"):
        shop_host.gateway.caller_of_token("x")


async def test_the_end_of_the_daemon_ends_its_requests():
    with host(managers={"shop": Shop}, config='[services.shop]\nmanager = "shop"') as made:
        client = client_of(made)
        events = await client.subscribe("shop")
    with pytest.raises(ConnectionLost, match="the daemon is stopping"):
        await anext(events)
    with pytest.raises(DaemonNotRunning, match="the daemon is stopping"):
        await client.call("shop", "who")


async def test_callers_that_come_no_more_are_forgotten(shop_host):
    gateway = shop_host.gateway
    for pid in range(400):
        await gateway.client(gateway.caller_of_user(0, 0, pid)).call("shop", "who")
    assert gateway.stats() == {"loops": 1, "links": 256, "refused": 0}


def test_who_guesses_tokens_does_not_keep_the_loop_of_the_daemon_busy(shop_host):
    told = []
    gateway = Gateway(shop_host.gateway.port._replace(record_refusal=lambda peer, what, error: told.append(peer.name)))
    for number in range(5000):
        with pytest.raises(NotPermitted):
            gateway.caller_of_token(f"guess {number}", origin="192.0.2.1")
    shop_host.run(asyncio.sleep(0))  # what was told stands before this in the queue of the loop
    assert gateway.stats()["refused"] == 5000
    assert 100 <= len(told) < 1000
    assert set(told) == {"token from 192.0.2.1"}


async def test_the_link_of_a_caller_does_not_keep_the_request_alive_that_it_was_made_in(shop_host):
    class OfRequest:
        pass

    variable = contextvars.ContextVar("of the request")

    async def serve() -> weakref.ref[OfRequest]:
        held = OfRequest()
        variable.set(held)
        await client_of(shop_host).call("shop", "who", timeout=60)
        return weakref.ref(held)

    held = await asyncio.create_task(serve())
    await client_of(shop_host).call("shop", "who")
    gc.collect()
    assert held() is None
