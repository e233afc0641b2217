"""Operations on a real store and dispatcher; another run of the daemon is another `Operations` on the same store."""

# private: _watchers: what is kept for a watcher that has left could be seen by nobody else

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import msgspec
import pytest

from ostler.aio import LoopQueue
from ostler.clock import SystemClock
from ostler.errors import (
    Cancelled,
    Conflict,
    ContractError,
    DeadlineExceeded,
    Draining,
    DriverNotReady,
    FeatureNotSupported,
    InvalidInput,
    MalformedMessage,
    MessageTooLarge,
    NotFound,
    NotPermitted,
    OperationInterrupted,
    StoreError,
    StoreUnavailable,
    WrongCallKind,
)
from ostler.messaging import Access, Context, Endpoint, LocalServiceClient, exposed
from ostler.messaging.interface.exposure import Durable
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import CAST, PROGRESS, SUBMIT, Request
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import serving
from ostler.operations import OperationControl, Operations
from ostler.store import OperationRecords, Store
from ostler.store.session import current_session
from ostler.types import CONTROL_TOPIC, LOCAL_PEER, OperationState, Peer, Role
from support.async_tests import loop_fixture
from support.local import dispatching
from support.waiting import until

QUEUED, RUNNING, WAITING = OperationState.QUEUED, OperationState.RUNNING, OperationState.WAITING
SUCCEEDED, FAILED, CANCELLED = OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED


class Lamps:
    """Methods that record each act, and can be held."""

    def __init__(self):
        self.acts = []
        self.hold = threading.Event()
        self.hold.set()
        self.failures = []
        self.undo_hold = threading.Event()
        self.undo_hold.set()
        self.undoing = self.most_undoing = 0

    def act(self, what):
        self.acts.append(what)
        return what

    @exposed(durable=Durable(on_restart="resume"))
    def paint(self, ctx: Context, lamp: str) -> str:
        ctx.step("sand", self.act, f"sand {lamp}")
        ctx.progress(1, 2, "sanded")
        while not self.hold.wait(0.005):
            ctx.check()
        return str(ctx.step("paint", self.act, f"paint {lamp}"))

    @exposed(durable=Durable(on_restart="retry"))
    async def polish(self, ctx: Context, lamp: str) -> str:
        async def act() -> str:
            return str(self.act(f"polish {lamp}"))

        done = await ctx.astep("polish", act)
        while not self.hold.is_set():
            await asyncio.sleep(0.005)
        return done

    @exposed(durable=Durable(on_restart="clean up", clean_up="unbuild"))
    def build(self, ctx: Context, lamp: str) -> str:
        self.act(f"build {lamp}")
        while not self.hold.wait(0.005):
            ctx.check()
        return lamp

    def unbuild(self, ctx: Context, lamp: str) -> None:
        self.undoing += 1
        self.most_undoing = max(self.most_undoing, self.undoing)
        try:
            while not self.undo_hold.wait(0.005):
                ctx.check()
            if self.failures:
                raise self.failures.pop()
            self.act(f"unbuild {lamp}")
        finally:
            self.undoing -= 1

    @exposed(role="viewer", durable=True)
    def whose(self, ctx: Context) -> list[str]:
        return [ctx.peer.name, str(ctx.role), ctx.host]

    @exposed(role="viewer", durable=True)
    async def whose_async(self, ctx: Context) -> list[str]:
        return [ctx.peer.name, str(ctx.role), ctx.host]

    @exposed(durable=Durable(attempts=3, backoff=0.02))
    async def flaky(self, ctx: Context) -> int:
        assert ctx.operation is not None
        self.act(f"attempt {ctx.operation.attempt}")
        if self.failures:
            raise self.failures.pop()
        return ctx.operation.attempt

    @exposed(durable=Durable(on_restart="resume", runs_unstored=True), short=True)
    def remove(self, ctx: Context, lamp: str) -> str:
        ctx.progress(1, 2)
        return str(ctx.step("remove", self.act, f"remove {lamp}"))

    @exposed(durable=Durable(on_restart="resume"))
    def enlist(self, ctx: Context, lamp: str) -> bool:
        """Record something and that it was, in one commit; return whether the step counts as recorded then."""
        self.on_enlist(ctx, lamp)
        return ctx.is_recorded("enlist")

    @exposed()
    def plain(self, ctx: Context, lamp: str) -> str:
        self.act(f"plain {lamp}")
        while not self.hold.wait(0.005):
            ctx.check()
        return lamp

    @exposed(durable=True)
    def stubborn(self, ctx: Context, lamp: str) -> str:
        self.act(f"stubborn {lamp}")
        self.hold.wait(10)
        return lamp

    @exposed(durable=Durable(on_restart="resume"))
    def slow_to_stop(self, ctx: Context, lamp: str) -> str:
        self.act(f"slow {lamp}")
        self.hold.wait(10)
        return lamp

    @exposed()
    async def count(self, ctx: Context):
        yield 1

    @exposed(secret=["key"])
    async def unlock(self, ctx: Context, key: str) -> None: ...


class Records(OperationRecords):
    """A table that can be made to fail, and to which nothing is written of attempts that end after a kill."""

    is_killed = False
    step_failures = 0
    """How many steps are not recorded, as on a full disk."""
    failures = 0
    """How many claims fail, as on a full disk."""
    is_full = False
    """Whether nothing new, and no end, can be stored."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.claim_gate, self.claiming = threading.Event(), threading.Event()
        self.claim_gate.set()

    def claim(self, operation_id):
        if not self.claim_gate.is_set():
            self.claiming.set()
            self.claim_gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the disk is full")
        return super().claim(operation_id)

    def insertion(self, *arguments, **options):
        self.raise_if_full()
        return super().insertion(*arguments, **options)

    def raise_if_full(self):
        if self.is_full:
            raise StoreUnavailable("the disk is full")

    def save_step(self, *arguments):
        if self.step_failures:
            self.step_failures -= 1
            raise StoreUnavailable("the disk is full")
        return super().save_step(*arguments)

    def end_attempt(self, *arguments, **options):
        self.raise_if_full()
        return None if self.is_killed else super().end_attempt(*arguments, **options)


class Asked(Call):
    """A request of a peer, as a transport brings it."""

    def __init__(self, method, peer, *, flags=0, request_id="from-a-peer", arguments=None):
        raw = msgspec.Raw(msgspec.msgpack.encode(arguments or {}))
        super().__init__(Request(1, 1, "lamp", method, raw, None, request_id, flags), peer, SystemClock())
        self.answer = asyncio.get_running_loop().create_future()
        self.reports = []

    def send_progress(self, progress):
        self.reports.append(progress)

    def pack(self, result):
        return msgspec.msgpack.encode(result)

    def send_reply(self, packed):
        self.answer.set_result(msgspec.msgpack.decode(packed))

    def send_error(self, error):
        self.answer.set_exception(error)


class Run:
    """One run of the daemon."""

    def __init__(self, store, dispatcher, inbox, clock, lamps, name, topic="lamp", *, hold_restored=False):
        self.events = []
        self.topic = topic
        self.lamps = lamps
        self.dispatcher = dispatcher
        self.records = Records(clock, "here", name)
        self.operations = Operations(
            store, dispatcher, lambda name, payload: self.events.append((name, payload)), records=self.records,
            hold_restored=hold_restored,
        )  # fmt: skip
        dispatcher.set_operations(self.operations)
        self.endpoint = next((each for each in dispatcher.endpoints() if each.topic == topic), None)
        control = OperationControl(self.operations, dispatcher.registry)
        dispatcher.registry.add_endpoint(
            Endpoint(CONTROL_TOPIC, "here", object(), None, namespaces={"operation": control})
        )
        self.client = LocalServiceClient(dispatcher, inbox, topic="tests", timeout=10)
        self.other_client = LocalServiceClient(dispatcher, inbox, topic="tests", timeout=10)

    def open(self, max_running=2):
        self.operations.add_topic(self.topic, max_running, lambda name: getattr(self.lamps, name))
        self.operations.start_topic(self.topic)
        return self

    async def submit(self, method, *, request_id="", **arguments):
        return await self.client.on(request_id=request_id).asubmit(self.topic, method, **arguments)

    async def state(self, operation_id):
        return (await self.operations.views.find(operation_id)).state


@pytest.fixture
def clock():
    return SystemClock()


@pytest.fixture
def lamps():
    return Lamps()


@pytest.fixture
def store(tmp_path, clock):
    opened = Store.open(tmp_path / "state" / "ostler.db", clock=clock, synchronous="NORMAL")
    yield opened
    opened.close()


@loop_fixture
async def inbox():
    yield LoopQueue(asyncio.get_running_loop())


@asynccontextmanager
async def running(store, inbox, clock, lamps, name, *, hold_restored=False, **options):
    """A run of the daemon, which stops at the end: what runs is left to the next one."""
    async with dispatching("lamp", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, name, hold_restored=hold_restored).open(**options)
        try:
            yield run
        finally:
            run.operations.stop_topic("lamp")
            lamps.hold.set()
            await until(lambda: not dispatcher.in_flight("lamp"))
            await run.operations.close()


@loop_fixture
async def run(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "run-1") as made:
        yield made


# ---------------------------------------------------------------- accepting


async def test_a_submitted_request_is_stored_before_it_is_accepted(run, store, lamps):
    lamps.hold.clear()
    operation = await run.submit("paint", lamp="desk")
    record = store.read(lambda: run.operations.records.find(operation.id))
    assert (record.topic, record.method, record.state) == ("lamp", "paint", RUNNING)
    lamps.hold.set()
    assert await operation.result() == "paint desk"
    assert lamps.acts == ["sand desk", "paint desk"]


async def test_a_plain_call_of_a_durable_method_is_the_same_work(run, lamps):
    assert await run.client.acall("lamp", "paint", lamp="desk") == "paint desk"
    (record,) = await run.operations.views.select(topic="lamp", states=(), account="", limit=10)
    assert (record.method, record.state, record.attempts) == ("paint", SUCCEEDED, 1)


async def test_a_cast_of_a_durable_method_is_stored_when_it_is_accepted(run, lamps):
    lamps.hold.clear()
    await run.client.acast("lamp", "paint", lamp="desk")
    (record,) = await run.operations.views.select(topic="", states=(), account="", limit=10)
    assert record.state is RUNNING


async def test_the_same_id_is_the_same_operation_and_runs_once(run, lamps):
    first = await run.submit("paint", request_id="mine", lamp="desk")
    assert await first.result() == "paint desk"
    again = await run.submit("paint", request_id="mine", lamp="desk")
    assert (again.id, again.status.state) == ("mine", SUCCEEDED)
    assert lamps.acts == ["sand desk", "paint desk"]
    with pytest.raises(Conflict, match="the id mine belongs to another operation"):
        await run.submit("paint", request_id="mine", lamp="other")


async def test_calls_get_ids_that_are_not_used_again_by_the_next_run(run, lamps):
    await run.client.acall("lamp", "paint", lamp="a")
    assert await run.other_client.acall("lamp", "paint", lamp="b") == "paint b"


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("count", {}, WrongCallKind),
        ("unlock", {"key": "hunter2"}, InvalidInput),
    ],
)
async def test_what_cannot_be_an_operation_is_refused_at_the_door(run, store, method, arguments, error):
    with pytest.raises(error):
        await run.submit(method, **arguments)
    assert store.read(run.operations.records.count_pending) == 0


async def test_a_submitted_cast_is_refused(run):
    with pytest.raises(WrongCallKind, match="submitted and cast at once"):
        await run.client.asend_request(CallRequest("lamp", "paint", {"lamp": "a"}, flags=SUBMIT | CAST))


async def test_a_topic_without_operations_says_so(run):
    with pytest.raises(FeatureNotSupported, match="ostler has no operations"):
        await run.client.asubmit("ostler", "operation.list")


async def test_a_method_that_is_not_declared_durable_runs_once(run, lamps):
    operation = await run.submit("plain", lamp="desk")
    assert await operation.result() == "desk"
    assert lamps.acts == ["plain desk"]


def test_a_durable_method_with_a_secret_is_a_defect_of_its_manager():
    class Safe:
        @exposed(durable=True, secret=["key"])
        async def open(self, ctx: Context, key: str) -> None: ...

    with pytest.raises(ContractError, match="durable and has the secret argument key"):
        Endpoint("safe", "here", Safe(), None)


def test_a_durable_method_that_yields_or_cleans_up_with_nothing_is_a_defect():
    class Stream:
        @exposed(durable=True)
        async def count(self, ctx: Context):
            yield 1

    class Broken:
        @exposed(durable=Durable(on_restart="clean up", clean_up="undo"))
        async def work(self, ctx: Context) -> None: ...

    with pytest.raises(ContractError, match="durable and yields"):
        Endpoint("stream", "here", Stream(), None)
    with pytest.raises(ContractError, match="names 'undo' to clean up after it"):
        Endpoint("broken", "here", Broken(), None)


async def test_a_caller_that_leaves_meanwhile_leaves_no_operation_that_nobody_runs(run, store, lamps):
    """The write waits behind another one; the caller is cancelled in between."""
    for flags in (SUBMIT, 0):
        held = threading.Event()
        blocking = asyncio.ensure_future(store.awrite(held.wait))
        await until(lambda: store.current_job() is not None)
        request = CallRequest("lamp", "paint", {"lamp": f"desk{flags}"}, flags=flags)
        caller = asyncio.ensure_future(run.client.asend_request(request))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        held.set()
        await blocking
        await until(lambda: not run.operations.running and not store.stats()["queued"])
        record = (await run.operations.views.select(topic="", states=(), account="", limit=1))[-1]
        await until(lambda: not run.operations.running)
        assert (await run.state(record.id)).is_final


async def test_arguments_that_are_too_large_to_be_kept_are_refused(run, store):
    with pytest.raises(MessageTooLarge, match="an operation stores at most 1048576"):
        await run.submit("paint", lamp="x" * 2**20)
    assert store.read(run.operations.records.count_pending) == 0


VIEWER = Peer(uid=4001, gid=4001, pid=1, name="uid 4001")


@pytest.mark.parametrize("method", ["whose", "whose_async"])
async def test_an_operation_has_the_name_and_the_role_of_who_submitted_it(run, method):
    """Also after the caller has lost the role, and never those of the daemon, in whose name it is begun."""
    run.dispatcher.apply(Access(own_uid=0, viewer=["4001"]), run.dispatcher.limits)
    call = Asked(method, VIEWER)
    run.dispatcher.dispatch(call)
    assert await call.answer == ["uid 4001", "viewer", ""]
    submitted = Asked(method, VIEWER, flags=SUBMIT)
    run.dispatcher.dispatch(submitted)
    await submitted.answer
    operation = run.client.aoperation("from-a-peer")
    assert await operation.result() == ["uid 4001", "viewer", ""]
    assert operation.status.requester == "uid 4001"


async def test_who_has_no_role_stores_nothing(run, store):
    for flags in (0, SUBMIT, CAST):
        call = Asked("whose", Peer(uid=4002, gid=4002, pid=1, name="uid 4002"), flags=flags)
        run.dispatcher.dispatch(call)
        with pytest.raises(NotPermitted, match="uid 4002 has no role"):
            await call.answer
    assert await run.operations.views.select(topic="", states=(), account="", limit=10) == []


async def test_a_manager_that_submits_while_it_serves_somebody_does_so_as_the_daemon(run, store):
    with serving(Context("other", "x", peer=VIEWER, role=Role.VIEWER)):
        operation = await run.submit("whose")
    assert await operation.result() == ["local", "admin", "here"]
    assert operation.status.requester == "uid 4001"  # whose share of what is bounded it uses


# ---------------------------------------------------------------- ends


async def test_an_error_is_that_of_the_operation(run, lamps):
    lamps.failures = [InvalidInput("no such lamp", hint="buy one")]
    operation = await run.submit("flaky")
    with pytest.raises(InvalidInput, match="no such lamp") as caught:
        await operation.result()
    assert caught.value.hint == "buy one"
    assert (operation.status.state, operation.status.attempts) == (FAILED, 1)


async def test_an_attempt_that_may_succeed_later_is_repeated(run, lamps):
    lamps.failures = [DriverNotReady("starting"), DriverNotReady("starting")]
    operation = await run.submit("flaky")
    waits = [status.why async for status in operation.watch() if status.state is WAITING]
    assert await operation.result() == 3
    assert lamps.acts == ["attempt 1", "attempt 2", "attempt 3"]
    assert all(why.endswith("of 3 failed: starting") for why in waits)
    states = [event["state"] for _, event in run.events]
    assert states == ["running", "waiting", "running", "waiting", "running", "succeeded"]


async def test_cancel_reaches_running_work(run, lamps):
    lamps.hold.clear()
    operation = await run.submit("paint", lamp="desk")
    await until(lambda: lamps.acts == ["sand desk"])
    status = await operation.cancel()
    assert "local" in status.why
    with pytest.raises(Cancelled, match="cancelled by local"):
        await operation.result()
    assert operation.status.state is CANCELLED
    with pytest.raises(Conflict, match="has ended"):
        await operation.cancel()


async def test_cancel_ends_what_waits_at_once(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "run-1", max_running=1) as run:
        lamps.hold.clear()
        first = await run.submit("paint", lamp="a")
        second = await run.submit("paint", lamp="b")
        assert (await second.refresh()).state is QUEUED
        assert (await second.cancel()).state is CANCELLED
        lamps.hold.set()
        await first.result()
        assert "sand b" not in lamps.acts


async def test_a_caller_that_cancels_its_call_cancels_the_operation(run, lamps):
    lamps.hold.clear()
    call = asyncio.ensure_future(run.client.acall("lamp", "paint", lamp="desk"))
    await until(lambda: lamps.acts)
    call.cancel()
    (record,) = await run.operations.views.select(topic="", states=(), account="", limit=1)
    await until(lambda: not run.operations.running)
    assert await run.state(record.id) is CANCELLED


async def test_a_cancelled_operation_that_succeeds_all_the_same_has_succeeded(run, lamps):
    lamps.hold.clear()
    operation = await run.submit("stubborn", lamp="desk")
    await until(lambda: lamps.acts)
    await operation.cancel()
    lamps.hold.set()
    assert await operation.result() == "desk"


async def test_a_time_limit_ends_it(run, lamps):
    lamps.hold.clear()
    operation = await run.client.on(time_limit=0.05).asubmit("lamp", "paint", lamp="desk")
    with pytest.raises(DeadlineExceeded):
        await operation.result()
    assert operation.status.state is FAILED


async def test_a_failed_operation_can_be_retried_and_repeats_no_step(run, lamps):
    lamps.hold.clear()
    operation = await run.submit("paint", lamp="desk")
    await until(lambda: lamps.acts)
    await operation.cancel()
    with pytest.raises(Cancelled):
        await operation.result()
    lamps.hold.set()
    await operation.retry()
    assert await operation.result() == "paint desk"
    assert lamps.acts == ["sand desk", "paint desk"]
    with pytest.raises(Conflict, match="only a failed or cancelled one"):
        await operation.retry()


async def test_no_more_run_at_once_than_are_allowed(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "run-1", max_running=2) as run:
        lamps.hold.clear()
        operations = [await run.submit("polish", lamp=str(number)) for number in range(5)]
        await until(lambda: len(lamps.acts) == 2)
        assert len(run.operations.running) == 2
        run.operations.set_max_running("lamp", 5)
        await until(lambda: len(lamps.acts) == 5)
        lamps.hold.set()
        assert sorted([await one.result() for one in operations]) == [f"polish {number}" for number in range(5)]


async def test_what_cannot_be_claimed_now_is_begun_when_the_database_can_be_written_again(run, lamps):
    lamps.hold.clear()
    running = [await run.submit("polish", lamp=str(number)) for number in range(2)]  # both slots
    waiting = await run.submit("polish", lamp="later")
    run.records.failures = 2
    lamps.hold.set()
    assert await waiting.result(timeout=20) == "polish later"
    assert [await one.result() for one in running] == ["polish 0", "polish 1"]
    assert run.records.failures == 0


async def test_what_is_cancelled_while_it_is_claimed_is_asked_to_stop(store, inbox, clock, lamps):
    """Both writes are in one group: the operation is claimed and cancelled before the loop hears of either."""
    async with running(store, inbox, clock, lamps, "run-1", max_running=1) as run:
        lamps.hold.clear()
        first = await run.submit("stubborn", lamp="a")
        operation = await run.submit("paint", lamp="b")
        run.records.claim_gate.clear()
        lamps.hold.set()
        await first.result()
        lamps.hold.clear()
        await until(run.records.claiming.is_set)
        cancelling = asyncio.ensure_future(run.operations.cancel(operation.id, "somebody"))
        await until(lambda: store.stats()["queued"])
        run.records.claim_gate.set()
        assert (await cancelling).state is RUNNING
        with pytest.raises(Cancelled, match="cancelled by somebody"):
            await operation.result(timeout=10)
        assert "paint b" not in lamps.acts


async def test_a_step_that_is_done_is_recorded_when_the_database_can_be_written_again(run, lamps):
    run.records.step_failures = 1
    operation = await run.submit("paint", lamp="desk")
    assert await operation.result(timeout=20) == "paint desk"
    assert operation.status.steps == ["sand", "paint"]
    assert lamps.acts == ["sand desk", "paint desk"]


async def test_callers_that_wait_cannot_keep_operations_from_running(store, inbox, clock, lamps):
    """As many requests as may be in progress wait for operations, each of which is one more."""
    async with running(store, inbox, clock, lamps, "run-1", max_running=1) as run:
        run.endpoint.max_in_flight = 3
        calls = [asyncio.ensure_future(run.client.acall("lamp", "polish", lamp=str(number))) for number in range(3)]
        assert sorted(await asyncio.gather(*calls)) == ["polish 0", "polish 1", "polish 2"]


# ---------------------------------------------------------------- restarts


async def leave_running(store, inbox, clock, lamps, method):
    """Return the id of an operation that a run of the daemon left in the state `running`, as `kill -9` does."""
    async with dispatching("lamp", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, "killed").open()
        lamps.hold.clear()
        operation = await run.submit(method, lamp="desk")
        await until(lambda: lamps.acts)
        run.records.is_killed = True
        lamps.hold.set()
        await until(lambda: not dispatcher.in_flight("lamp"))
        await run.operations.close()
    record = store.read(lambda: run.operations.records.find(operation.id))
    assert record.state is RUNNING
    return operation.id


async def test_a_killed_operation_is_resumed_and_repeats_no_step(store, inbox, clock, lamps):
    async with dispatching("lamp", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, "killed").open()
        lamps.hold.clear()
        operation = await run.submit("paint", lamp="desk")
        await until(lambda: lamps.acts)
        run.records.is_killed = True
        run.operations.stop_topic("lamp")
        await until(lambda: not dispatcher.in_flight("lamp"))
        await run.operations.close()
    lamps.hold.set()
    async with running(store, inbox, clock, lamps, "next") as after:
        found = after.client.aoperation(operation.id)
        assert await found.result() == "paint desk"
        assert (found.status.attempts, found.status.interruptions) == (2, 1)
    assert lamps.acts == ["sand desk", "paint desk"]


async def test_a_killed_operation_that_is_to_be_retried_begins_from_the_start(store, inbox, clock, lamps):
    operation_id = await leave_running(store, inbox, clock, lamps, "polish")
    async with running(store, inbox, clock, lamps, "next") as after:
        assert await after.client.aoperation(operation_id).result() == "polish desk"
    assert lamps.acts == ["polish desk", "polish desk"]


async def test_a_killed_operation_is_cleaned_up_with_its_arguments(store, inbox, clock, lamps):
    operation_id = await leave_running(store, inbox, clock, lamps, "build")
    async with running(store, inbox, clock, lamps, "next") as after:
        with pytest.raises(OperationInterrupted, match="what it had begun was undone"):
            await after.client.aoperation(operation_id).result()
    assert lamps.acts == ["build desk", "unbuild desk"]


async def test_what_cannot_be_undone_yet_is_tried_again(store, inbox, clock, lamps):
    """After a restart a driver may not be ready; and at once is not how many are undone."""
    async with dispatching("lamp", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, "killed").open(max_running=5)
        lamps.hold.clear()
        ids = [(await run.submit("build", lamp=str(number))).id for number in range(2)]
        await until(lambda: len(lamps.acts) == 2)
        run.records.is_killed = True
        lamps.hold.set()
        await until(lambda: not dispatcher.in_flight("lamp"))
        await run.operations.close()
    lamps.failures = [DriverNotReady("not yet")]
    async with running(store, inbox, clock, lamps, "next", max_running=1) as after:
        for operation_id in ids:
            with pytest.raises(OperationInterrupted, match="what it had begun was undone"):
                await after.client.aoperation(operation_id).result(timeout=20)
    assert sorted(lamps.acts[2:]) == ["unbuild 0", "unbuild 1"]
    assert lamps.most_undoing == 1


async def test_a_stop_in_the_midst_of_undoing_leaves_it_to_the_next_start(store, inbox, clock, lamps):
    operation_id = await leave_running(store, inbox, clock, lamps, "build")
    lamps.undo_hold.clear()
    async with running(store, inbox, clock, lamps, "second") as run:
        await until(lambda: lamps.undoing)
        with pytest.raises(Conflict, match="is being undone"):
            await run.operations.cancel(operation_id, "somebody")
        run.operations.stop_topic("lamp")
        await until(lambda: not run.operations.running)
        assert await run.state(operation_id) is RUNNING
    lamps.undo_hold.set()
    async with running(store, inbox, clock, lamps, "third") as run:
        with pytest.raises(OperationInterrupted, match="what it had begun was undone"):
            await run.client.aoperation(operation_id).result(timeout=20)
    assert lamps.acts == ["build desk", "unbuild desk"]


async def test_a_killed_operation_that_is_not_durable_has_failed_and_did_not_run_twice(store, inbox, clock, lamps):
    operation_id = await leave_running(store, inbox, clock, lamps, "plain")
    async with running(store, inbox, clock, lamps, "next") as after:
        with pytest.raises(OperationInterrupted, match="the daemon ended while operation"):
            await after.client.aoperation(operation_id).result()
    assert lamps.acts == ["plain desk"]


async def test_a_stop_hands_running_operations_over_to_the_next_start(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "first") as run:
        lamps.hold.clear()
        operation = await run.submit("paint", lamp="desk")
        await until(lambda: lamps.acts)
        run.operations.stop_topic("lamp")
        await until(lambda: not run.operations.running)
        assert await run.state(operation.id) is QUEUED
    async with running(store, inbox, clock, lamps, "second") as after:
        assert await after.client.aoperation(operation.id).result() == "paint desk"
    assert lamps.acts == ["sand desk", "paint desk"]


async def test_a_drain_does_not_wait_for_calls_whose_operations_have_not_begun(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "first", max_running=1) as run:
        lamps.hold.clear()
        first = asyncio.create_task(run.client.acall("lamp", "polish", lamp="first"))
        await until(lambda: lamps.acts)
        second = asyncio.create_task(run.other_client.acall("lamp", "polish", lamp="second"))
        await until(lambda: len(run.operations.views.waited_for("lamp")) == 2)
        run.operations.drain_topic("lamp")
        with pytest.raises(Draining, match=r"operation .* is stored, and begins when lamp runs again"):
            await second
        # What an earlier check had let through is stored a moment after the drain began.
        with pytest.raises(Draining, match="is stored, and begins when"):
            await run.other_client.acall("lamp", "polish", lamp="third")
        lamps.hold.set()
        assert await first == "polish first"
        run.operations.resume_topic("lamp")
        await until(lambda: len(lamps.acts) == 3)
        assert await run.other_client.acall("lamp", "polish", lamp="fourth") == "polish fourth"
    assert lamps.acts == [f"polish {which}" for which in ("first", "second", "third", "fourth")]


async def test_an_attempt_that_ends_after_the_end_starts_nothing(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "first") as run:
        lamps.hold.clear()
        await run.submit("stubborn", lamp="desk")
        await until(lambda: lamps.acts)
        await run.operations.close()
        run.records.is_full = True  # a task for its end would never end
        lamps.hold.set()
        await until(lambda: not run.dispatcher.in_flight("lamp"))
        assert not [task for task in asyncio.all_tasks() if "end operation" in task.get_name()]


async def test_queued_operations_wait_for_the_next_start_in_their_order(store, inbox, clock, lamps):
    async with dispatching("lamp", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, "first")
        run.operations.add_topic("lamp", 1, lambda name: getattr(lamps, name))  # accepts, and is never started
        ids = [(await run.submit("polish", lamp=str(number))).id for number in range(3)]
        await run.operations.close()
    async with running(store, inbox, clock, lamps, "second", max_running=1) as after:
        for operation_id in ids:
            await after.client.aoperation(operation_id).result()
    assert lamps.acts == ["polish 0", "polish 1", "polish 2"]


async def test_work_that_hangs_over_the_restart_of_its_service_is_not_begun_again(run, lamps):
    lamps.hold.clear()
    operation = await run.submit("polish", lamp="desk")
    await until(lambda: lamps.acts)
    run.operations.remove_topic("lamp")
    run.open()
    await asyncio.sleep(0)
    await until(lambda: "load the operations of lamp" not in {task.get_name() for task in asyncio.all_tasks()})
    assert lamps.acts == ["polish desk"]
    lamps.hold.set()
    assert await operation.result() == "polish desk"


@pytest.mark.parametrize("column", ["requester", "arguments", "error"])
async def test_a_damaged_record_fails_alone_and_is_shown(store, inbox, clock, lamps, column):
    async with dispatching("lamp", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, "first")
        run.operations.add_topic("lamp", 1, lambda name: getattr(lamps, name))  # accepts, and is never started
        damaged, sound = [await run.submit("polish", lamp=str(number)) for number in range(2)]
        update = f"UPDATE operations SET {column} = x'c1' WHERE id = '{damaged.id}'"
        await store.awrite(lambda: current_session().database.execute_sql(update))
        await run.operations.close()
    async with running(store, inbox, clock, lamps, "second", max_running=1) as after:
        assert await after.client.aoperation(sound.id).result(timeout=20) == "polish 1"
        if column != "error":  # that is written again with the end
            with pytest.raises((StoreError, MalformedMessage)):
                await after.client.aoperation(damaged.id).result(timeout=20)
            assert after.operations.running == []
        listed = await after.operations.views.select(topic="", states=(), account="", limit=10)
        assert [row.id for row in listed] == [damaged.id, sound.id]
        assert (await after.client.aoperation(damaged.id).inspect()).id == damaged.id


async def test_an_operation_of_a_service_that_is_gone_can_be_cancelled(store, inbox, clock, lamps):
    operation_id = await leave_running(store, inbox, clock, lamps, "polish")
    async with dispatching("other", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, "next")
        assert (await run.client.aoperation(operation_id).cancel()).state is CANCELLED
        await run.operations.close()


# ---------------------------------------------------------------- watching


async def test_a_watcher_sees_each_state_and_the_end(run, lamps):
    lamps.hold.clear()
    operation = await run.submit("paint", lamp="desk")
    seen = []
    async for status in operation.watch():
        seen.append((status.state, status.text, tuple(status.steps)))
        lamps.hold.set()
    assert seen[-1] == (SUCCEEDED, "sanded", ("sand", "paint"))
    assert run.operations.views._watchers == {}


async def test_each_state_is_an_event(run, lamps):
    operation = await run.submit("paint", lamp="desk")
    await operation.result()
    assert [(name, event["id"]) for name, event in run.events] == [
        ("operation.running", operation.id), ("operation.succeeded", operation.id),
    ]  # fmt: skip
    assert not any("arguments" in event or "result" in event for _, event in run.events)


async def test_an_operation_is_found_by_the_beginning_of_its_id(run):
    await run.submit("polish", request_id="abc-1", lamp="a")
    await run.submit("polish", request_id="abd-2", lamp="b")
    await run.submit("polish", request_id="abd", lamp="c")
    views = run.operations.views
    assert [await views.find_id(beginning) for beginning in ("abc", "abd", "abd-")] == ["abc-1", "abd", "abd-2"]
    with pytest.raises(Conflict, match="several operations begin with ab"):
        await views.find_id("ab")
    for unknown in ("x", ""):
        with pytest.raises(NotFound):
            await views.find_id(unknown)


async def test_a_program_gets_the_operation_with_its_id_and_no_longer_one(run, lamps):
    """An id that was not accepted may be the beginning of another one: "backup-1" and "backup-10"."""
    lamps.hold.clear()
    accepted = await run.submit("polish", request_id="backup-10", lamp="a")
    lost = run.client.aoperation("backup-1")
    for request in (lost.refresh, lost.inspect, lost.cancel, lost.retry, lambda: anext(lost.watch())):
        with pytest.raises(NotFound, match="operation backup-1 not found"):
            await request()
    lamps.hold.set()
    await accepted.result()


async def test_waiting_gives_up_in_time_and_the_operation_goes_on(run, lamps):
    lamps.hold.clear()
    operation = await run.submit("polish", lamp="desk")
    with pytest.raises(DeadlineExceeded, match="has not ended in time"):
        await operation.result(timeout=0.05)
    lamps.hold.set()
    assert await operation.result(timeout=10) == "polish desk"


async def test_a_plain_call_of_what_frees_space_runs_unstored_on_a_full_disk(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "run") as run:
        run.records.is_full = True
        assert await run.client.acall("lamp", "remove", lamp="a") == "remove a"
        assert lamps.acts == ["remove a"]
        with pytest.raises(StoreUnavailable):
            await run.submit("remove", lamp="b")
        with pytest.raises(StoreUnavailable):
            await run.client.acall("lamp", "paint", lamp="b")
        run.records.is_full = False
        assert lamps.acts == ["remove a"]
        assert run.events == []


async def test_an_unstored_call_ends_with_its_error_and_with_its_caller(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "run") as run:
        run.records.is_full = True
        lamps.act = lambda what: lamps.hold.wait(5) and lamps.acts.append(what)
        lamps.hold.clear()
        with pytest.raises(DeadlineExceeded):
            await run.client.on(timeout=0.05).acall("lamp", "remove", lamp="a")
        lamps.hold.set()

        def refuse(what):
            raise Conflict("in use")

        lamps.act = refuse
        with pytest.raises(Conflict, match="in use"):
            await run.client.acall("lamp", "remove", lamp="a")


async def test_the_caller_of_what_frees_space_does_not_wait_until_its_end_is_stored(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "run") as run:

        def act(what):
            run.records.is_full = True
            return what

        lamps.act = act
        assert await run.client.on(timeout=5).acall("lamp", "remove", lamp="a") == "remove a"
        assert [event for event, _ in run.events] == ["operation.running"]
        run.records.is_full = False
        await until(lambda: [event for event, _ in run.events] == ["operation.running", "operation.succeeded"])


async def test_a_step_inside_a_write_is_committed_with_it(store, inbox, clock, lamps):
    notes = store.kv("test")

    def enlist(ctx, lamp):
        def write():
            notes.set(lamp, "enlisted")
            return lamp

        return store.write(lambda: ctx.step("enlist", write))

    lamps.on_enlist = enlist
    async with running(store, inbox, clock, lamps, "run") as run:
        operation = await run.submit("enlist", lamp="a")
        assert await operation.result() is False  # it is from the next attempt on
        assert await asyncio.to_thread(notes.get, "a") == "enlisted"
        assert (await operation.inspect()).steps == ["enlist"]


async def test_a_step_inside_a_write_that_is_rolled_back_was_not_done(store, inbox, clock, lamps):
    notes, tried = store.kv("test"), []

    def enlist(ctx, lamp):
        def write():
            tried.append(lamp)
            notes.set(lamp, "enlisted")

        def fail():
            ctx.step("enlist", write)
            raise Conflict("not now")

        with pytest.raises(Conflict):
            store.write(fail)
        assert notes.get(lamp) is None
        store.write(lambda: ctx.step("enlist", write))

    lamps.on_enlist = enlist
    async with running(store, inbox, clock, lamps, "run") as run:
        operation = await run.submit("enlist", lamp="a")
        await operation.result()
        assert tried == ["a", "a"]
        assert await asyncio.to_thread(notes.get, "a") == "enlisted"


async def test_a_step_inside_a_write_does_not_hold_up_the_writer_on_a_full_disk(store, inbox, clock, lamps):
    lamps.on_enlist = lambda ctx, lamp: store.write(lambda: ctx.step("enlist", list))
    async with running(store, inbox, clock, lamps, "run") as run:
        run.records.step_failures = 1
        operation = await run.submit("enlist", lamp="a")
        with pytest.raises(StoreUnavailable):
            await operation.result()


async def test_progress_of_an_unstored_call_reaches_its_caller(store, inbox, clock, lamps):
    async with running(store, inbox, clock, lamps, "run") as run:
        run.records.is_full = True
        call = Asked("remove", LOCAL_PEER, flags=PROGRESS, arguments={"lamp": "a"})
        run.dispatcher.dispatch(call)
        assert await call.answer == "remove a"
        assert [report.total for report in call.reports] == [2]


async def leave_two_operations(store, inbox, clock, lamps, method="paint"):
    """Have a run of the daemon die with one operation that runs and one that is queued; return their ids."""
    lamps.hold.clear()
    async with running(store, inbox, clock, lamps, "first", max_running=1) as run:
        found = [(await run.submit(method, lamp=lamp)).id for lamp in "ab"]
        await until(lambda: lamps.acts)
        run.records.is_killed = True
    lamps.acts.clear()
    return found


async def test_restored_operations_begin_when_the_daemon_is_ready_and_new_ones_at_once(store, inbox, clock, lamps):
    left = await leave_two_operations(store, inbox, clock, lamps)
    async with running(store, inbox, clock, lamps, "second", hold_restored=True) as run:
        new = await run.submit("paint", lamp="c")
        assert await new.result() == "paint c"
        assert lamps.acts == ["sand c", "paint c"]
        run.operations.release_restored()
        for each in left:
            await run.client.aoperation(each).result()
        assert lamps.acts[2:] == ["paint a", "sand b", "paint b"]


async def test_what_was_queued_before_a_restart_waits_for_its_driver_after_it(store, inbox, clock, lamps):
    _, queued = await leave_two_operations(store, inbox, clock, lamps)
    failures = [DriverNotReady("initialising")]

    def act(what):
        if what == "sand b" and failures:
            raise failures.pop()
        lamps.acts.append(what)
        return what

    lamps.act = act
    async with running(store, inbox, clock, lamps, "second") as run:
        operation = run.client.aoperation(queued)
        await until(lambda: ("operation.waiting", queued) in [(name, one["id"]) for name, one in run.events])
        assert await operation.result() == "paint b"
        assert not failures


async def test_a_new_operation_whose_driver_is_not_ready_fails_at_once(store, inbox, clock, lamps):
    def act(what):
        raise DriverNotReady("initialising")

    lamps.act = act
    async with running(store, inbox, clock, lamps, "run") as run:
        with pytest.raises(DriverNotReady):
            await (await run.submit("paint", lamp="a")).result()


async def test_what_has_not_ended_at_a_stop_is_left_to_the_next_start_and_is_no_crash(store, inbox, clock, lamps):
    async with dispatching("lamp", lamps, inbox) as dispatcher:
        run = Run(store, dispatcher, inbox, clock, lamps, "first").open()
        lamps.hold.clear()
        resumed = await run.submit("slow_to_stop", lamp="a")
        failed = await run.submit("stubborn", lamp="b")
        await until(lambda: len(lamps.acts) == 2)
        run.operations.stop_topic("lamp")
        await run.operations.close()
        records = [store.read(lambda each=each: run.records.find(each.id)) for each in (resumed, failed)]
        assert [(each.state, each.interruptions, each.owner) for each in records] == [(QUEUED, 0, ""), (FAILED, 0, "")]
        lamps.hold.set()
        await until(lambda: not dispatcher.in_flight("lamp"))
    async with running(store, inbox, clock, lamps, "second") as run:
        assert await run.client.aoperation(resumed.id).result() == "a"
