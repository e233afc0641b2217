import asyncio
import logging
import threading

import pytest

from ostler.daemon import daemon
from ostler.daemon.startup import open_store
from ostler.errors import DaemonNotRunning, Draining, OstlerError
from ostler.messaging import Context, exposed
from ostler.store import Store

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\n'
CRITICAL = LAMP + 'critical = true\nreport_interval = "5s"\ndown_time = "20s"\n'


async def test_ready_is_said_once_when_the_first_call_is_answered(bench) -> None:
    async with bench() as b:
        await b.ready()
        assert b.ready_lines == ["lamp up"]
        assert await b.call("greet", topic="lamp") == "hello"
        assert await b.end() == 0
        assert b.notifier.datagrams[-1] == {"STATUS": "stopped"}
        assert b.left == []


@pytest.mark.failure_mode("Life", "READY only when work is possible")
async def test_ready_only_when_work_is_possible(bench, trouble) -> None:
    gate = trouble.hang("init_host lamp")
    async with bench() as b:
        b.start()
        await asyncio.sleep(3)
        assert b.ready_lines == []
        assert (await b.call("status"))["state"] == "starting"
        gate.set()
        await b.daemon.start_finished
        assert b.ready_lines == ["lamp up"]


async def test_a_slow_start_asks_for_time_and_says_what_it_waits_for_in_one_datagram(bench, trouble) -> None:
    gate = trouble.hang("init_host lamp")
    async with bench() as b:
        b.start()
        await asyncio.sleep(5)
        slow = [d for d in b.notifier.datagrams if "init_host" in d.get("STATUS", "")]
        assert len(slow) >= 3
        assert all(int(d["EXTEND_TIMEOUT_USEC"]) > 0 for d in slow)
        gate.set()
        await b.daemon.start_finished
        said = len(b.notifier.datagrams)
        await asyncio.sleep(5)
        assert not any("EXTEND_TIMEOUT_USEC" in d for d in b.notifier.datagrams[said:])


async def test_a_service_that_fails_leaves_the_daemon_degraded_and_the_others_at_work(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("the disk is on fire")
    async with bench() as b:
        await b.ready()
        status = await b.call("status")
        assert (status["state"], "service lamp is failed" in status["why"]) == ("degraded", True)
        assert any("the disk is on fire" in line for line in status["not_well"])
        assert await b.daemon.reloader.reload("alice")


async def test_a_failed_start_is_stopped_said_and_nothing_is_left(bench, trouble, caplog) -> None:
    trouble.errors["init_host lamp"] = OSError("the disk is on fire")
    async with bench(LAMP + "required = true\n") as b:
        b.start()
        waiting = asyncio.ensure_future(asyncio.shield(b.daemon.start_finished))
        reloading = asyncio.ensure_future(b.daemon.reloader.reload("alice"))
        assert await b.running == 1
        for waiter in (waiting, reloading):
            with pytest.raises(Draining, match="could not start"):
                await waiter
        assert b.ready_lines == []
        assert any(line.startswith("could not start: required service lamp") for line in b.notifier.statuses)
        with pytest.raises(DaemonNotRunning):
            await b.call("status")
        Store.open(b.paths.database).close()
    (said,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert not said.exc_info


async def test_a_start_that_takes_too_long_says_what_it_waited_for(bench, trouble, caplog) -> None:
    trouble.hang("init_host lamp")
    async with bench('start_timeout = "50s"\nstop_timeout = "5s"\n' + LAMP + "required = true\n") as b:
        b.start()
        assert await b.running == 1
        assert b.daemon.stuck_parts[0].startswith("lamp.init_host on lamp-")
    (said,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "the services were not up after 50s, waiting for lamp: init_host" in said.message
    assert not said.exc_info


async def test_an_optional_service_that_hangs_in_its_start_does_not_keep_the_daemon_down(bench, trouble) -> None:
    trouble.hang("init_host lamp")
    async with bench('start_timeout = "50s"\nstop_timeout = "5s"\n' + LAMP) as b:
        await b.ready()
        status = await b.call("status")
        assert status["state"] == "degraded"
        assert "it was not up after 50s, at init_host" in str(status["not_well"])
        await b.end()


@pytest.mark.failure_mode("Life", "SIGTERM during `init_host`")
async def test_sigterm_during_init_host(bench, trouble) -> None:
    gate = trouble.hang("init_host lamp")
    async with bench() as b:
        b.start()
        await trouble.met("init_host lamp")
        asyncio.get_running_loop().call_later(2, gate.set)
        assert await b.end() == 0
        assert b.ready_lines == []
        assert trouble.calls[-1] == "cleanup_host"
        assert b.daemon.stuck_parts == []


async def test_a_stop_while_the_database_is_being_opened_closes_it_again(bench, monkeypatch) -> None:
    async with bench() as b:
        loop, entered = asyncio.get_running_loop(), asyncio.Event()
        opened = []

        class SlowStore(Store):
            @classmethod
            def open(cls, *args, **named):
                loop.call_soon_threadsafe(entered.set)
                stopping.wait(10)
                opened.append(Store.open(*args, **named))
                return opened[0]

        stopping = threading.Event()
        # The daemon makes its store itself; a disk that is slow at one moment is not to be had.
        monkeypatch.setattr(open_store, "Store", SlowStore)
        b.start()
        await entered.wait()
        loop.call_soon(stopping.set)
        assert await b.end() == 0
        assert len(opened) == 1
        Store.open(b.paths.database).close()  # the lock has been given back
        assert "init_host lamp" not in b.daemon.dump()["services"]


async def test_a_signal_before_anything_is_open_stops_what_is_not_there(bench) -> None:
    async with bench() as b:
        b.make()
        b.daemon.on_signal(15)
        assert await b.daemon.run() == 0


@pytest.mark.failure_mode("State", "two daemons on one host and name")
async def test_two_daemons_on_one_state(bench, caplog) -> None:
    async with bench() as one, bench() as two:
        await one.ready()
        two.start()
        assert await two.running == 1
        assert await one.call("greet", topic="lamp") == "hello"
    (said,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "another daemon" in said.message.lower()


async def test_a_stop_names_what_it_waits_for_and_the_pings_go_on(bench, trouble) -> None:
    async with bench(LAMP, watchdog=10.0) as b:
        await b.ready()
        gate = trouble.hang("work")
        async with b.client() as client:
            working = asyncio.ensure_future(client.on(timeout=100).call("lamp", "work"))
            await asyncio.sleep(1)
            b.daemon.on_signal(15)
            await asyncio.sleep(1)
            said, pings = len(b.notifier.datagrams), b.notifier.count("WATCHDOG")
            await asyncio.sleep(15)
            stopping = [d for d in b.notifier.datagrams[said:] if "STATUS" in d]
            assert all("waiting for lamp.work on lamp-" in d["STATUS"] for d in stopping)
            assert all("EXTEND_TIMEOUT_USEC" in d for d in stopping)
            assert b.notifier.count("WATCHDOG") - pings >= 4
            assert not any("withheld" in line for line in b.notifier.statuses)
            gate.set()
            assert await working == "done"
            assert await b.running == 0


@pytest.mark.failure_mode("Life", "second SIGTERM")
async def test_second_sigterm(bench, trouble) -> None:
    trouble.hang("work")
    async with bench('fast_stop_timeout = "10min"\n' + LAMP + 'drain_timeout = "10min"\n') as b:
        await b.ready()
        async with b.client() as client:
            working = asyncio.ensure_future(client.on(timeout=1000).call("lamp", "work"))
            await asyncio.sleep(1)
            b.daemon.on_signal(15)
            await asyncio.sleep(1)
            assert not b.running.done()
            before = b.clock.monotonic()
            b.daemon.on_signal(15)
            assert await b.running == 0
            assert b.clock.monotonic() - before < 5
            assert b.daemon.stuck_parts[0].startswith("lamp.work")
            with pytest.raises(OstlerError):
                await working


@pytest.mark.failure_mode("Life", "an eternal task that ends")
async def test_an_eternal_task_that_ends_stops_the_daemon_with_its_reason(bench, trouble, caplog) -> None:
    async with bench() as b:
        await b.ready()
        b.daemon.fail("task report state of services ended unexpectedly")
        assert await b.running == 1
        assert trouble.calls[-1] == "cleanup_host"
    assert "the daemon stopped: task report state of services ended" in caplog.text


async def test_plugins_are_told_before_ready_and_at_the_stop_and_cannot_prevent_either(bench, trouble, caplog) -> None:
    trouble.errors["ostler_started node1"] = SystemExit(1)
    trouble.errors["ostler_stopping node1"] = KeyboardInterrupt()
    async with bench() as b:
        await b.ready()
        assert "ostler_started node1" in trouble.calls
        assert await b.end() == 0
        assert trouble.calls[-2:] == ["ostler_stopping node1", "cleanup_host"]
    assert caplog.text.count("plugin lamps: ostler_st") == 2


async def test_a_service_that_may_fail_does_not_keep_the_daemon_from_being_ready(bench, trouble) -> None:
    trouble.errors["init_host other"] = OSError("no disk")
    async with bench(LAMP + '[services.other]\nmanager = "lamp"\nrequired = false\n') as b:
        await b.ready()
        assert b.ready_lines == ["lamp up, other failed"]
        status = await b.call("status")
        assert any("service other is failed" in line and "no disk" in line for line in status["not_well"])


async def test_the_status_line_follows_the_services(bench) -> None:
    async with bench() as b:
        await b.ready()
        (service,) = b.daemon.services
        service.state_tracker.set_problem("bulb", "it flickers")
        assert b.notifier.statuses[-1] == "lamp degraded"
        service.state_tracker.set_problem("bulb", "")
        assert b.notifier.statuses[-1] == "lamp up"


async def test_a_store_that_hangs_withholds_the_ping_once_and_the_status_comes_back(bench, caplog) -> None:
    gate = threading.Event()
    async with bench(watchdog=10.0) as b:
        await b.ready()
        await asyncio.sleep(10)
        hanging = asyncio.ensure_future(b.daemon.store.awrite(lambda: gate.wait(20), label="a write that hangs"))
        await asyncio.sleep(10)
        pings = b.notifier.count("WATCHDOG")
        await asyncio.sleep(30)
        assert b.notifier.count("WATCHDOG") == pings
        assert "the store" in b.notifier.statuses[-1]
        assert any("the store" in line for line in (await b.call("status"))["not_well"])
        gate.set()
        await hanging
        await asyncio.sleep(10)
        assert b.notifier.count("WATCHDOG") > pings
        assert b.notifier.statuses[-1] == "lamp up"
    said = [record for record in caplog.records if "withholding" in record.getMessage()]
    assert len(said) == 1
    assert "store-writer" in said[0].ostler_detail


async def test_a_critical_service_that_hangs_withholds_the_ping(bench, trouble) -> None:
    async with bench(CRITICAL, watchdog=10.0) as b:
        await b.ready()
        await asyncio.sleep(30)
        assert b.daemon.watchdog.stale_signals() == []
        trouble.hang("is_working")
        await asyncio.sleep(60)
        (line,) = b.daemon.watchdog.stale_signals()
        assert "service lamp" in line
        assert "have not returned" in line


@pytest.mark.parametrize("config", [CRITICAL.replace("true", "false"), CRITICAL])
async def test_a_service_that_is_not_critical_or_was_drained_owes_no_evidence(bench, trouble, config) -> None:
    async with bench(config, watchdog=10.0) as b:
        await b.ready()
        if config == CRITICAL:
            await b.daemon.services[0].drain(1, "maintenance")
        trouble.hang("is_working")
        pings = b.notifier.count("WATCHDOG")
        await asyncio.sleep(120)
        assert b.daemon.watchdog.stale_signals() == []
        assert b.notifier.count("WATCHDOG") - pings > 20


async def test_whether_a_service_is_critical_can_be_changed_live(bench, trouble) -> None:
    async with bench(CRITICAL.replace("true", "false"), watchdog=10.0) as b:
        await b.ready()
        b.configure('[daemon]\nhost = "node1"\n' + CRITICAL)
        assert (await b.daemon.reloader.reload("alice")).needs_restart == []
        trouble.hang("is_working")
        await asyncio.sleep(80)
        assert "service lamp" in b.daemon.watchdog.stale_signals()[0]


async def test_a_dump_can_be_had_at_every_point(bench, trouble, caplog) -> None:
    trouble.hang("init_host lamp")
    async with bench() as b:
        daemon = b.make()
        daemon.log_dump()
        b.running = asyncio.get_running_loop().create_task(daemon.run())
        await trouble.met("init_host lamp")
        dump = daemon.dump()
        assert dump["services"]["lamp"]["working"][0].startswith("lamp.init_host on lamp-")
        assert any("lamp-" in name for name in dump["threads"])
        assert dump["store"]["commits"] > 0
        trouble.let_go()
        await daemon.start_finished
        await b.end()
        daemon.log_dump()
    dumps = [record for record in caplog.records if record.getMessage().startswith("dump")]
    assert len(dumps) == 2


async def test_the_self_call_goes_over_the_socket(bench) -> None:
    async with bench(watchdog=10.0) as b:
        await b.ready()
        await asyncio.sleep(20)
        assert b.daemon.parts.messaging.stats()["topics"]["ostler"]["requests"] >= 5


class Deaf:
    """A control that answers nobody."""

    rpc_version = "1.0"
    namespaces: dict[str, object] = {}

    @exposed(role="viewer", changes=False)
    async def echo(self, ctx: Context, text: str = "") -> str:
        """Never return."""
        await asyncio.Event().wait()
        return ""


async def test_a_socket_that_does_not_answer_withholds_the_ping(bench, monkeypatch) -> None:
    # The daemon makes its control itself, and that always answers.
    monkeypatch.setattr(daemon, "ControlEndpoint", lambda *_, **__: Deaf())

    async with bench(watchdog=10.0) as b:
        await b.ready()
        await asyncio.sleep(30)
        assert ["the RPC socket" in line for line in b.daemon.watchdog.stale_signals()] == [True]


@pytest.mark.failure_mode("Plugins", "an import or a hook that hangs")
async def test_a_hook_of_a_plugin_hangs_at_start_and_stop(bench, trouble, caplog) -> None:
    trouble.hang("ostler_started node1")
    trouble.hang("ostler_stopping node1")
    async with bench() as b:
        b.start()
        await asyncio.sleep(3)
        assert "waiting for ostler_started of plugin lamps" in b.notifier.statuses[-1]
        await asyncio.shield(b.daemon.start_finished)
        begun = asyncio.get_running_loop().time()
        assert await b.end() == 0
        assert asyncio.get_running_loop().time() - begun < 7
        assert b.daemon.stuck_parts == ["ostler_stopping of plugin lamps did not return within 5s"]


async def test_a_stop_during_a_hook_that_hangs_ends_at_once(bench, trouble) -> None:
    trouble.hang("ostler_started node1")
    async with bench() as b:
        b.start()
        await asyncio.sleep(3)
        begun = asyncio.get_running_loop().time()
        assert await b.end() == 0
        assert asyncio.get_running_loop().time() - begun < 2
