"""Drivers in processes of their own: calls, errors, crashes, limits, output, store, options, end."""

import asyncio
import logging
import os
import threading
from pathlib import Path

import pytest

from ostler import log
from ostler.clock import SystemClock
from ostler.driver import DriverEnvironment, Drivers, DriverSpec
from ostler.errors import (
    Cancelled,
    DriverCrashed,
    DriverError,
    DriverLimitExceeded,
    DriverNotReady,
    DriverStuck,
    EncodeError,
    FeatureNotSupported,
    InvalidInput,
)
from ostler.messaging.wire.request_context import Context, Progress, serving
from ostler.types import DriverState, Role
from support.async_tests import loop_fixture
from support.isolated_drivers import Colour, Dancer, Probe, ProbeError, Sight, make_probe


class MemoryStore(dict):
    """Stands for the key-value store of the daemon."""

    def set(self, key, value):
        self[key] = value

    def delete(self, key):
        return self.pop(key, None) is not None

    def items(self, prefix=""):
        return {key: value for key, value in sorted(super().items()) if key.startswith(prefix)}


class Rig:
    """One driver in a process of its own, on the real clock."""

    def __init__(self, cls=Probe, path="", build=None, **options):
        self.store = MemoryStore()
        values = {"retry_interval": 0.01, "max_retry_interval": 0.05, "init_timeout": 20, "call_timeout": 20, **options}
        self.options = Probe.Options(driver="probe", isolation="process", **values)
        environment = DriverEnvironment(
            name="p", topic="probes", host="node1", options=self.options, clock=SystemClock(),
            log=log.adapter(logging.getLogger("ostler.driver.probes.p"), service="probes", driver="p"), kv=self.store,
        )  # fmt: skip
        spec = DriverSpec(name="p", cls=cls, options=self.options, environment=environment, path=path, build=build)
        self.changed = asyncio.Event()
        self.drivers = Drivers({"p": spec}, asyncio.get_running_loop(), SystemClock(), on_change=self._on_change)

    def _on_change(self, name, status):
        self.changed.set()

    async def call(self, method, *arguments, **named):
        return await self.drivers.call("p", method, *arguments, **named)

    async def until(self, state, **facts):
        async with asyncio.timeout(20):
            while (status := self.drivers.status("p")).state is not state:
                self.changed.clear()
                await self.changed.wait()
        return status


@loop_fixture
async def rig():
    """Start a driver: `await rig(Probe, call_timeout=1)`; stopped at the end."""
    made = []

    async def start(*args, ready=True, **options):
        one = Rig(*args, **options)
        made.append(one)
        await one.drivers.start()
        if ready:
            assert await one.drivers.wait(20) == [], one.drivers.status("p")
        return one

    yield start
    for one in made:
        await one.drivers.stop(5)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until_gone(pid):
    async with asyncio.timeout(20):
        while is_running(pid):
            await asyncio.sleep(0.01)


async def test_a_driver_runs_in_another_process_that_is_named_after_it(rig):
    r = await rig()
    pid = await r.call("pid")
    assert pid != os.getpid()
    assert os.getsid(pid) == pid
    assert b"probes/p" in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert Path(f"/proc/{pid}/comm").read_text() == "ostler:probes/p\n"
    assert await r.drivers.stop(5) == []
    assert not is_running(pid)


async def test_arguments_and_results_are_of_the_types_that_the_contract_declares(rig):
    r = await rig()
    sight = Sight(Path("/dev"), frozenset({Colour.RED, Colour.BLUE}), {"a": 1})
    assert await r.call("look", sight, sight, again=(1, 2)) == (sight, sight)
    assert await r.call("add", 1, b=2) == 3


async def test_megabytes_go_both_ways_and_too_many_are_refused(rig):
    r = await rig()
    data = os.urandom(5 * 2**20)
    assert await r.call("echo", data) == data
    with pytest.raises(DriverError.__mro__[1], match="above the limit"):
        await r.call("echo", bytes(65 * 2**20))
    assert await r.call("add", 1, 2) == 3


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, object(), {"a": [(1,)]}, Colour.RED])
async def test_what_would_change_on_its_way_is_refused_where_no_type_says_what_it_is(rig, value):
    r = await rig()
    with pytest.raises(EncodeError, match="argument value of undeclared"):
        await r.call("undeclared", value)
    with pytest.raises(EncodeError, match="result of undeclared"):
        await r.call("undeclared")
    assert await r.call("undeclared", {"a": [1, "b", None, b"c", 1.5]}) == {"a": [1, "b", None, b"c", 1.5]}


async def test_a_result_of_another_type_than_declared_and_a_generator_are_errors(rig):
    r = await rig()
    with pytest.raises(EncodeError, match="result of lie"):
        await r.call("lie")
    with pytest.raises(DriverError, match="returned a generator instead of a result"):
        await r.call("generate")


async def test_what_could_not_come_back_is_refused_before_it_is_done(rig, tmp_path):
    r = await rig()
    with pytest.raises(EncodeError, match=r"the result of open_lock of driver p .* a .*ProbeLock is not data"):
        await r.call("open_lock", str(tmp_path / "marker"))
    assert not (tmp_path / "marker").exists()


async def test_errors_keep_their_type_and_their_details(rig, caplog):
    r = await rig()
    with pytest.raises(ProbeError) as refused:
        await r.call("refuse")
    assert (refused.value.hint, refused.value.thing) == ("look elsewhere", "lamp")
    with pytest.raises(FileNotFoundError) as missed:
        await r.call("miss_file")
    assert missed.value.filename == "/nonexistent/file"
    with pytest.raises(ValueError, match="wrong") as failed:
        await r.call("fail", "wrong")
    assert "KeyError: 'wrong'" in str(failed.value.__cause__)
    assert "isolated_drivers.py" in str(failed.value.__cause__)


async def test_system_exit_in_a_call_ends_the_call_only(rig):
    r = await rig()
    pid = await r.call("pid")
    with pytest.raises(DriverError, match="raised SystemExit: 4"):
        await r.call("system_exit")
    assert await r.call("pid") == pid


@pytest.mark.parametrize(
    ("method", "arguments", "outcome"),
    [("segfault", (), "was killed by SIGSEGV"), ("exit", (3,), "exited with status 3")],
)
async def test_a_crash_fails_the_calls_in_it_and_the_driver_is_started_again(rig, caplog, method, arguments, outcome):
    r = await rig()
    before = await r.call("pid")
    other = asyncio.create_task(r.call("hang"))
    await asyncio.sleep(0.05)
    with pytest.raises(DriverCrashed, match=f"{outcome} during {method}") as crash:
        await r.call(method, *arguments)
    assert (crash.value.driver, crash.value.topic, crash.value.method) == ("p", "probes", method)
    with pytest.raises(DriverCrashed, match="during hang"):
        await other
    await r.until(DriverState.READY)
    assert await r.call("pid") != before
    assert f"crashed: its process {outcome}" in caplog.text
    if method == "segfault":
        assert "Fatal Python error: Segmentation fault" in caplog.text


async def test_a_process_killed_from_outside_is_started_again_with_growing_waits(rig):
    r = await rig(retry_interval=0.01, max_retry_interval=1000)
    tries = []
    for _ in range(3):
        os.kill(await r.call("pid"), 9)
        status = await r.until(DriverState.FAILED)
        assert "SIGKILL" in status.why
        tries.append(status.tries)
        with pytest.raises(DriverNotReady):
            await r.call("pid")
        await r.until(DriverState.READY)
    assert tries == [1, 2, 3]


async def test_a_driver_that_crashes_while_it_is_initialised_is_retried(rig):
    r = await rig(begin="exit", ready=False, max_retry_interval=1000, retry_interval=300)
    status = await r.until(DriverState.FAILED)
    assert "exited with status 7 during initialise" in status.why
    assert status.retry_at > 0


async def test_a_call_that_holds_the_interpreter_is_killed_after_its_limit(rig):
    r = await rig(call_timeout=0.3, kill_timeout=0.1)
    pid = await r.call("pid")
    with pytest.raises(DriverStuck, match="has not returned"):
        await r.call("hold_interpreter", 600)
    await r.until(DriverState.FAILED)
    await r.until(DriverState.READY)
    assert await r.call("pid") != pid
    await until_gone(pid)


async def test_an_initialise_that_hangs_is_killed_and_tried_again(rig):
    r = await rig(begin="hang", ready=False, init_timeout=1.5, kill_timeout=0.1)
    status = await r.until(DriverState.FAILED)
    assert "initialise did not return within its 1.5s" in status.why


async def test_a_late_call_is_cancelled_before_its_process_would_be_killed(rig):
    r = await rig(call_timeout=0.3, kill_timeout=15)
    pid = await r.call("pid")
    with serving(Context("t", "m")), pytest.raises(DriverStuck):
        await r.call("work_until_cancelled", Context("other", "one"))  # not the one that is served
    await r.until(DriverState.READY)
    assert await r.call("pid") == pid


async def test_the_request_its_progress_and_its_cancellation_reach_the_driver(rig):
    r = await rig()
    seen = []
    context = Context("lamps", "switch", request_id="r1", role=Role.OPERATOR, on_progress=seen.append)
    with serving(context):
        assert await r.call("work", context, 2) == "lamps.switch r1 operator local"
    assert seen == [Progress(1, 2, "step 1"), Progress(2, 2, "step 2")]
    waiting = asyncio.create_task(r.call("work_until_cancelled", context))
    async with asyncio.timeout(10):
        while "working" not in r.store:
            await asyncio.sleep(0.005)
    context.cancel()
    with pytest.raises(Cancelled):
        await waiting
    with pytest.raises(Cancelled):  # cancelled before the process knows of the call
        await r.call("work_until_cancelled", context)


async def test_progress_outside_of_a_request_starts_the_budget_again(rig):
    r = await rig(call_timeout=0.5)
    assert await r.call("work_without_request", 10) == 10


async def test_a_step_of_an_operation_is_refused_as_it_could_not_be_recorded(rig):
    r = await rig()
    context = Context("lamps", "switch")
    context.operation = object()
    with pytest.raises(DriverError, match="cannot record the step one"):
        await r.call("record_step", context)


async def test_the_key_value_store_is_that_of_the_daemon(rig):
    r = await rig()
    assert [await r.call("count", "c1") for _ in range(2)] == [1, 2]
    assert r.store == {"c1": 2}
    with pytest.raises(InvalidInput, match="not plain JSON"):
        await r.call("store_oddly")


@pytest.mark.failure_mode("Plugins", "a driver in its own process that looks for what is the daemon's")
async def test_secrets_come_by_message_and_not_by_environment(rig, monkeypatch):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "CREDENTIALS_DIRECTORY", "API_TOKEN"):
        monkeypatch.setenv(name, "1")
    r = await rig(word="hush-hush-hush")
    assert await r.call("secret") == "hush-hush-hush"
    found = await r.call("environment_variables")
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "CREDENTIALS_DIRECTORY", "API_TOKEN"} & set(found)
    pid = await r.call("pid")
    shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert b"hush" not in shown


@pytest.mark.failure_mode("Plugins", "a driver in its own process that looks for what is the daemon's")
async def test_it_inherits_no_descriptor_of_the_daemon(rig, tmp_path):
    with Path(tmp_path, "open").open("w") as mine:
        os.set_inheritable(mine.fileno(), True)
        r = await rig()
        found = await r.call("descriptors")
    assert str(tmp_path / "open") not in found.values()
    assert found["0"] == "/dev/null"


async def test_limits_of_memory_and_descriptors_hold_in_the_process_only(rig):
    r = await rig(memory_limit="1GiB", descriptor_limit=100)
    with pytest.raises(MemoryError):
        await r.call("fill_memory")
    assert 50 < await r.call("open_files") < 100
    assert await r.call("add", 1, 2) == 3


@pytest.mark.failure_mode("Plugins", "a driver in its own process that uses more CPU than it may")
@pytest.mark.parametrize("method", ["spin", "spin_in_background"])
async def test_a_process_that_spins_in_c_is_killed_at_its_limit_and_started_again(rig, caplog, method):
    r = await rig(cpu_limit=0.1, cpu_window=3, max_retry_interval=1000)
    pid = await r.call("pid")
    await asyncio.sleep(0)
    waiting = asyncio.create_task(r.call("hang"))
    spinning = asyncio.create_task(r.call(method, *([2**40] if method == "spin" else [])))
    with pytest.raises(
        DriverLimitExceeded, match=r"killed: it used .* CPU .* `cpu_limit` of 0.1 .* during hang"
    ) as hit:
        await waiting
    assert hit.value.details["limit"] == "cpu_limit"
    await asyncio.gather(spinning, return_exceptions=True)
    await r.until(DriverState.READY)
    assert await r.call("pid") != pid
    assert "more than its `cpu_limit` of 0.1 CPUs allows" in caplog.text


async def test_a_limit_of_cpu_can_be_set_and_lifted_while_it_spins(rig):
    r = await rig()
    await r.call("spin_in_background")
    limited = r.options.model_copy(update={"cpu_limit": 0.1, "cpu_window": 1})
    r.drivers.apply_options("p", limited)
    r.drivers.apply_options("p", r.options)
    other = asyncio.create_task(r.call("hang"))
    await asyncio.wait([other], timeout=0.5)
    assert not other.done()
    r.drivers.apply_options("p", limited)
    with pytest.raises(DriverLimitExceeded):
        await other


async def test_a_lower_priority_is_that_of_the_process_and_of_its_session(rig):
    r = await rig(nice=7)
    expected = min(19, os.nice(0) + 7)
    assert await r.call("priorities") == (expected, str(expected))


async def test_what_it_prints_and_logs_is_in_the_log_with_its_name(rig, caplog):
    caplog.set_level(logging.INFO)
    r = await rig()
    await r.call("print_lines", 2)
    await r.drivers.stop(5)
    lines = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "ostler.driver.probes.p"]
    assert ("INFO", f"line 1 {'x' * 50}") in lines
    assert ("WARNING", "an error line \\xff") in lines
    assert ("WARNING", "library: a library's line") in lines
    assert ("WARNING", "a line of the driver") in lines
    assert ("INFO", "cleaned up") in lines
    record = next(each for each in caplog.records if each.getMessage() == "a line of the driver")
    assert record.ostler_fields == {"service": "probes", "driver": "p", "volume": "v1"}


async def test_what_it_prints_is_bounded(rig, caplog):
    caplog.set_level(logging.INFO)
    r = await rig()
    await r.call("print_lines", 100_000)
    await r.drivers.stop(5)
    lines = [each.getMessage() for each in caplog.records if each.name == "ostler.driver.probes.p"]
    assert 900 < len(lines) < 2000
    assert any("more lines of the driver's process were left out" in line for line in lines)


async def test_live_options_reach_it_and_others_create_it_again(rig):
    r = await rig()
    pid = await r.call("pid")
    r.drivers.apply_options("p", r.options.model_copy(update={"shade": "light"}))
    async with asyncio.timeout(10):
        while await r.call("shade") != "light":
            await asyncio.sleep(0)
    status = await r.drivers.reinitialise("p", r.options.model_copy(update={"shade": "bright"}))
    assert status.state is DriverState.READY
    assert await r.call("shade") == "bright"
    assert await r.call("pid") != pid
    assert not is_running(pid)


async def test_a_reload_takes_a_driver_to_a_process_and_back(rig):
    r = await rig()
    await r.drivers.reinitialise("p", r.options.model_copy(update={"isolation": "thread"}))
    assert await r.call("pid") == os.getpid()
    await r.drivers.reinitialise("p", r.options)
    assert await r.call("pid") != os.getpid()


async def test_plain_attributes_can_be_read_and_features_are_asked_for(rig):
    r = await rig()
    proxy = r.drivers["p"]
    assert proxy.serial == "P-1"
    assert proxy.features == frozenset()
    with pytest.raises(AttributeError):
        proxy.state  # noqa: B018 - to read it is the point
    with pytest.raises(FeatureNotSupported):
        await r.call("dance")
    d = await rig(Dancer)
    assert await d.call("dance") is None


async def test_a_factory_creates_it_and_what_has_no_name_is_refused(rig):
    r = await rig(Probe, path="support.isolated_drivers:make_probe", build=make_probe)
    assert await r.call("add", 1, 2) == 3

    class Local(Probe):
        pass

    refused = await rig(Local, ready=False)
    status = await refused.until(DriverState.FAILED)
    assert "cannot run in a process of its own" in status.why
    assert status.retry_at == 0


async def test_a_child_that_it_leaves_dies_with_it(rig):
    r = await rig()
    child = await r.call("leave_child")
    assert is_running(child)
    with pytest.raises(DriverCrashed):
        await r.call("exit", 0)
    await until_gone(child)
    await r.until(DriverState.READY)
    child = await r.call("leave_child")
    await r.drivers.stop(5)
    await until_gone(child)


async def test_a_cleanup_that_hangs_is_killed_at_the_stop(rig):
    r = await rig(shade="hanging")
    pid = await r.call("pid")
    assert await r.drivers.stop(0.3) == []
    assert r.drivers.status("p").state is DriverState.STOPPED
    assert "its process was killed" in r.drivers.status("p").why
    assert not is_running(pid)


async def test_a_hundred_crashes_leave_no_descriptor_thread_or_process_behind(rig):
    r = await rig(retry_interval=0.001, max_retry_interval=0.001)

    async def crash():
        with pytest.raises(DriverCrashed):
            await r.call("exit", 1)
        await r.until(DriverState.READY)

    for _ in range(3):
        await crash()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only how many
    for _ in range(30):
        await crash()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
    assert sum(each.name.startswith("probes.p") for each in threading.enumerate()) <= r.options.workers
