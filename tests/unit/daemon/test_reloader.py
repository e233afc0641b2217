import asyncio
import logging

import pytest

from ostler import log
from ostler.errors import ConfigurationError, Draining, ServiceError, ServiceNotFound
from ostler.reload_types import ReloadResult

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


HEAD = '[daemon]\nhost = "node1"\n'
LAMP = '[services.lamp]\nmanager = "lamp"\n'
DRIVER = LAMP + '[services.lamp.drivers.desk]\ndriver = "gpio"\n'


def reloading(b):
    return [d for d in b.notifier.datagrams if "RELOADING" in d]


async def test_live_options_hold_at_once_and_the_verdict_names_them(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        b.configure(HEAD + LAMP + 'greeting = "well"\n')
        verdict = await b.daemon.reloader.reload("alice")
        assert (verdict.ok, verdict.needs_restart) == (True, [])
        assert [(c.path, c.old, c.new, c.needs) for c in verdict.changes] == [
            ("services.lamp.greeting", "hello", "well", "live")
        ]
        assert await b.call("greet", topic="lamp") == "well"
        assert trouble.calls.count("reset") == 1
        assert b.daemon.reloader.last_result is verdict


async def test_limits_of_the_daemon_itself_hold_at_once(bench) -> None:
    async with bench() as b:
        await b.ready()
        b.configure(
            '[daemon]\nhost = "node1"\nstart_timeout = "5min"\n[operations]\nmax_queued = 1\n'
            '[messaging]\nkeepalive_interval = "7s"\n[store]\nbackups = 9\n[network]\naddress_wait = 9\n' + LAMP
        )
        verdict = await b.daemon.reloader.reload("alice")
        assert (verdict.ok, verdict.needs_restart) == (True, [])
        assert {(change.path, change.needs) for change in verdict.changes} == {
            ("daemon.start_timeout", "live"),
            ("messaging.keepalive_interval", "live"),
            ("network.address_wait", "live"),
            ("operations.max_queued", "live"),
            ("store.backups", "live"),
        }
        parts = b.daemon.parts
        assert parts.messaging.server.keepalive_interval == 7
        operations = parts.runtime.operations
        assert operations.limits.max_queued == 1


async def test_systemd_hears_of_beginning_and_end_each_in_one_datagram(bench) -> None:
    async with bench() as b:
        await b.ready()
        said = len(b.notifier.datagrams)
        await b.daemon.reloader.reload("alice")
        first, *_, last = [d for d in b.notifier.datagrams[said:] if "RELOADING" in d or "READY" in d]
        assert (first["RELOADING"], int(first["MONOTONIC_USEC"]) > 0) == ("1", True)
        assert (last["READY"], last["STATUS"]) == ("1", "reloaded: nothing to change live")


@pytest.mark.failure_mode("Life", "SIGHUP with a file that does not parse")
async def test_sighup_with_a_file_that_does_not_parse(bench, trouble, caplog) -> None:
    async with bench() as b:
        await b.ready()
        before = b.daemon.active.resolved
        b.configure("[services.lamp\n")
        b.daemon.reloader.on_sighup()
        await asyncio.sleep(1)
        assert b.daemon.active.resolved is before
        assert "reset" not in trouble.calls
        assert b.ready_lines[-1] == "reload refused, nothing has changed: 1 problem"
        assert await b.call("greet", topic="lamp") == "hello"
    assert any("ostler.toml:1:" in getattr(record, "ostler_detail", "") for record in caplog.records)
    assert "Traceback" not in caplog.text


@pytest.mark.failure_mode("Life", "SIGHUP with a bad typed value")
async def test_sighup_with_a_bad_typed_value(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        b.configure(HEAD + LAMP + 'report_interval = "often"\ngreeting = 7\n')
        with pytest.raises(ConfigurationError) as caught:
            await b.daemon.reloader.reload("alice")
        assert len(caught.value.problems) == 2
        assert b.daemon.reloader.last_result.problems == [str(problem) for problem in caught.value.problems]
        assert "reset" not in trouble.calls


@pytest.mark.failure_mode("Life", "an option that needs a new process")
async def test_what_needs_a_restart_is_named_until_the_restart_over_several_reloads(bench) -> None:
    async with bench() as b:
        await b.ready()
        b.configure('[daemon]\nhost = "node2"\n' + LAMP)
        (waiting,) = (await b.daemon.reloader.reload("a")).needs_restart
        assert (waiting.path, waiting.old, waiting.new) == ("daemon.host", "node1", "node2")
        b.configure('[daemon]\nhost = "node2"\n' + LAMP + 'greeting = "well"\n')
        verdict = await b.daemon.reloader.reload("a")
        assert verdict.needs_restart == [waiting]
        assert [change.path for change in verdict.changes] == ["services.lamp.greeting"]
        assert 'needs a restart for daemon.host ("node1" -> "node2")' in verdict.summary
        b.configure(HEAD + LAMP)
        assert (await b.daemon.reloader.reload("a")).needs_restart == []


async def test_services_and_drivers_are_added_and_removed(bench) -> None:
    async with bench(DRIVER) as b:
        await b.ready()
        b.configure(HEAD + DRIVER.replace("desk", "floor") + '[services.more]\nmanager = "lamp"\n')
        verdict = await b.daemon.reloader.reload("a")
        assert (verdict.ok, verdict.needs_restart) == (True, [])
        assert [(step.action, step.subject, step.outcome) for step in verdict.steps] == [
            ("add driver", "lamp/floor", "done"),
            ("add service", "more", "done"),
            ("remove driver", "lamp/desk", "done"),
        ]
        assert await b.call("greet", topic="more") == "hello"
        assert list(b.daemon.parts.runtime.group.services["lamp"].drivers) == ["floor"]
        b.configure(HEAD)
        assert (await b.daemon.reloader.reload("a")).ok
        with pytest.raises(ServiceNotFound, match="'lamp' not found"):
            await b.call("greet", topic="lamp")
        assert b.daemon.services == []


async def test_drivers_are_renewed_where_their_options_say_so(bench, trouble) -> None:
    async with bench(DRIVER) as b:
        await b.ready()
        b.configure(HEAD + DRIVER + 'colour = "red"\n')
        verdict = await b.daemon.reloader.reload("a")
        assert [change.needs for change in verdict.changes] == ["driver"]
        assert "initialise desk red" in trouble.calls


async def test_a_reset_that_fails_is_in_the_verdict(bench, trouble) -> None:
    trouble.errors["reset"] = ValueError("this greeting cannot be")
    async with bench() as b:
        await b.ready()
        verdict = await b.daemon.reloader.reload("a")
        assert not verdict.ok
        assert "this greeting cannot be" in verdict.problems[0]
        assert b.ready_lines[-1] == "reloaded with problems: nothing to change live; 1 problem"


@pytest.mark.parametrize("error", [OSError("no descriptors left"), SystemExit(1), ZeroDivisionError()])
async def test_a_reload_that_raises_ends_for_systemd_and_for_the_caller(bench, error) -> None:
    async with bench() as b:
        await b.ready()
        b.read_error = error
        with pytest.raises((type(error), RuntimeError)):
            await b.daemon.reloader.reload("a")
        assert b.ready_lines[-1].startswith("reload failed: ")
        b.read_error = None
        assert (await b.daemon.reloader.reload("a")).ok


async def test_a_reload_that_raises_while_it_is_applied_ends_as_well(bench, monkeypatch) -> None:
    async with bench() as b:
        await b.ready()
        # Nothing that is applied here fails after it was validated; so one of it has to be broken.
        monkeypatch.setattr(log, "set_up", lambda **_: 1 / 0)
        verdict = await b.daemon.reloader.reload("a")
        assert not verdict.ok
        assert b.ready_lines[-1].startswith("reload failed, 1 step could not be undone: apply daemon options")


@pytest.mark.failure_mode("Life", "50 SIGHUPs in a second")
async def test_50_sighups_in_a_second(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        gate = trouble.hang("reset")
        for _ in range(50):
            b.daemon.reloader.on_sighup()
            await asyncio.sleep(0.02)
        gate.set()
        await asyncio.sleep(5)
        assert b.reads == 2
        assert trouble.calls.count("reset") == 2
        assert len(reloading(b)) == 2


async def test_who_asks_while_a_reload_runs_gets_one_that_reads_the_files_after_that(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        gate = trouble.hang("reset")
        first = asyncio.ensure_future(b.daemon.reloader.reload("a"))
        while "reset" not in trouble.calls:
            await asyncio.sleep(0.01)
        b.configure(HEAD + LAMP + 'greeting = "new"\n')
        others = [asyncio.ensure_future(b.daemon.reloader.reload("b")) for _ in range(3)]
        await asyncio.sleep(0.1)
        gate.set()
        assert (await first).changes == []
        verdicts: list[ReloadResult] = await asyncio.gather(*others)
        assert all(verdict is verdicts[0] for verdict in verdicts)
        assert [change.path for change in verdicts[0].changes] == ["services.lamp.greeting"]


async def test_a_caller_who_leaves_ends_no_reload(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        gate = trouble.hang("reset")
        asked = asyncio.ensure_future(b.daemon.reloader.reload("a"))
        await asyncio.sleep(0.5)
        asked.cancel()
        gate.set()
        await asyncio.sleep(1)
        assert b.daemon.reloader.last_result.ok


async def test_a_reload_asked_for_during_the_start_is_carried_out_after_it(bench, trouble) -> None:
    gate = trouble.hang("init_host lamp")
    async with bench() as b:
        b.start()
        await asyncio.sleep(1)
        b.daemon.reloader.on_sighup()
        await asyncio.sleep(1)
        assert reloading(b) == []
        gate.set()
        while len(b.ready_lines) < 2:
            await asyncio.sleep(0.1)
        assert b.ready_lines == ["lamp up", "reloaded: nothing to change live"]


@pytest.mark.failure_mode("Life", "SIGHUP then SIGTERM")
async def test_sighup_then_sigterm(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        b.daemon.reloader.on_sighup()
        assert await b.end() == 0
        assert trouble.calls[-1] == "cleanup_host"
        assert [line for line in b.ready_lines if "reload" in line] == []


async def test_a_reload_during_the_stop_is_refused_and_says_nothing_to_systemd(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        gate = trouble.hang("cleanup_host")
        b.daemon.on_signal(15)
        await asyncio.sleep(1)
        b.daemon.reloader.on_sighup()
        with pytest.raises(Draining, match="the daemon is stopping"):
            await b.daemon.reloader.reload("a")
        gate.set()
        await b.running
        assert reloading(b) == []
        assert "reset" not in trouble.calls


async def test_a_stop_while_a_reload_runs_waits_for_its_reset_and_resets_nobody_after(bench, trouble) -> None:
    async with bench(LAMP + '[services.more]\nmanager = "lamp"\n') as b:
        await b.ready()
        gate = trouble.hang("reset")
        asked = asyncio.ensure_future(b.daemon.reloader.reload("a"))
        await asyncio.sleep(1)
        b.daemon.on_signal(15)
        await asyncio.sleep(1)
        assert "cleanup_host" not in trouble.calls[: trouble.calls.index("reset")]
        gate.set()
        assert await b.running == 0
        assert trouble.calls.count("reset") == 1
        assert trouble.calls.count("cleanup_host") == 2
        with pytest.raises(Draining, match="the daemon is stopping"):
            await asked


async def test_requests_in_flight_are_not_dropped(bench) -> None:
    async with bench() as b:
        await b.ready()
        calls = [asyncio.ensure_future(b.call("greet", topic="lamp", after=float(n))) for n in range(5)]
        await asyncio.sleep(0.1)
        b.configure(HEAD + LAMP + 'greeting = "new"\n')
        await b.daemon.reloader.reload("a")
        assert set(await asyncio.gather(*calls)) == {"hello", "new"}


async def test_a_log_level_set_by_hand_holds_until_the_next_reload(bench) -> None:
    async with bench() as b:
        await b.ready()
        log.set_up()
        await b.call("log_level", level="debug", logger="ostler.lamp")
        assert logging.getLogger("ostler.lamp").level == logging.DEBUG
        b.configure(HEAD + '[log]\nlevel = "warning"\n' + LAMP)
        verdict = await b.daemon.reloader.reload("a")
        assert verdict.needs_restart == []
        assert logging.getLogger("ostler.lamp").level == logging.NOTSET
        assert logging.getLogger().level == logging.WARNING


async def test_what_the_command_line_says_still_wins_after_a_reload(bench) -> None:
    async with bench(overrides=['log.level="error"', 'services.lamp.greeting="mine"']) as b:
        await b.ready()
        b.configure(HEAD + '[log]\nlevel = "debug"\n' + LAMP + 'greeting = "theirs"\n')
        assert (await b.daemon.reloader.reload("a")).changes == []
        assert logging.getLogger().level == logging.ERROR
        assert await b.call("greet", topic="lamp") == "mine"


async def test_roles_and_limits_are_taken_over(bench) -> None:
    async with bench() as b:
        await b.ready()
        with pytest.raises(Exception, match="no role"):
            await b.call("echo", uid=4242)
        b.configure(
            HEAD + '[access]\nviewer = ["4242"]\n[messaging]\nmax_in_flight = 7\nmax_in_flight_per_peer = 5\n' + LAMP
        )
        assert (await b.daemon.reloader.reload("a")).needs_restart == []
        assert await b.call("echo", uid=4242, text="now") == "now"
        messages = b.daemon.parts.messaging
        assert (messages.dispatcher.limits.max_in_flight, messages.server.max_in_flight_per_peer) == (7, 5)


async def test_secrets_are_masked_in_the_verdict_and_in_the_log(bench, tmp_path, caplog) -> None:
    (tmp_path / "one").write_text("swordfish")
    (tmp_path / "two").write_text("trout")

    async with bench(LAMP + f'key = {{file = "{tmp_path}/one"}}\n') as b:
        await b.ready()
        b.configure(HEAD + LAMP + f'key = {{file = "{tmp_path}/two"}}\n')
        verdict = await b.daemon.reloader.reload("a")
        assert [change.path for change in verdict.changes] == ["services.lamp.key"]
        texts = [repr(verdict), repr(b.daemon.dump()), repr(await b.call("config")), repr(b.notifier.datagrams)]
        assert not [text for text in texts if "swordfish" in text or "trout" in text]
    assert "swordfish" not in caplog.text
    assert "trout" not in caplog.text


async def test_the_configuration_in_force_is_told_and_not_what_waits_for_a_restart(bench) -> None:
    async with bench() as b:
        await b.ready()
        b.configure('[daemon]\nhost = "node2"\n' + LAMP + 'greeting = "well"\n')
        await b.daemon.reloader.reload("a")
        found = {each.path: each.value for each in b.daemon.active.effective_values(b.daemon.services)}
        assert found["daemon.host"] == "node1"
        assert found["services.lamp.greeting"] == "well"


@pytest.mark.failure_mode("Life", "a reload that hangs or finds no configuration")
async def test_a_configuration_that_is_gone_or_empty_at_a_reload_takes_nothing_away(bench) -> None:
    async def refused(b, text):
        with pytest.raises(ConfigurationError, match=text):
            await b.daemon.reloader.reload("alice")

    async with bench(LAMP) as b:
        drop_ins = b.paths.config_file.parent / "conf.d"
        drop_ins.mkdir()
        (drop_ins / "10.toml").write_text('[access]\nviewer = ["1000"]\n')
        await b.ready()
        before = b.daemon.active.resolved
        b.paths.config_file.rename(b.paths.config_file.with_name("aside"))
        await refused(b, f"{b.paths.config_file}: existed when")
        b.paths.config_file.write_text("")
        await refused(b, f"{b.paths.config_file}: was not empty when")
        b.configure(HEAD + LAMP)
        drop_ins.rename(drop_ins.with_name("aside.d"))
        await refused(b, f"{drop_ins}: existed when")
        assert b.daemon.active.resolved is before
        drop_ins.mkdir()  # this is how a drop-in is undone
        verdict = await b.daemon.reloader.reload("alice")
        assert (verdict.ok, f"files removed: {drop_ins}/10.toml" in verdict.summary) == (True, True)
        assert b.daemon.active.resolved.configuration.access.viewer == []


@pytest.mark.failure_mode("Life", "a reload that hangs or finds no configuration")
async def test_a_reload_hangs_in_reading_is_given_up_and_named(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        trouble.hang("read")
        b.on_read = lambda: trouble.meet("read")
        with pytest.raises(ServiceError, match="reading the bench's configuration has not returned for 1min"):
            await b.daemon.reloader.reload("a")
        assert b.ready_lines[-1].startswith("reload failed: reading the bench's configuration")
        assert any("reloading: reading the bench's" in text for text in b.notifier.statuses)
        b.on_read = None  # the cause has gone, the thread still hangs
        assert (await b.daemon.reloader.reload("a")).ok


async def test_who_asks_for_the_next_reload_waits_ten_seconds_for_one_that_hangs(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        trouble.hang("read")
        b.on_read = lambda: trouble.meet("read")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        first = loop.create_task(b.daemon.reloader.reload("a"))
        await asyncio.sleep(1)
        b.on_read = None
        assert (await b.daemon.reloader.reload("b")).ok
        assert loop.time() - begun < 12
        with pytest.raises(ServiceError):
            await first


async def test_no_more_threads_are_left_behind_than_a_few(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        trouble.hang("read")
        b.on_read = lambda: trouble.meet("read")
        for _ in range(4):
            with pytest.raises(ServiceError, match="has not returned"):
                await b.daemon.reloader.reload("a")
        with pytest.raises(ServiceError, match="4 earlier reloads still hang"):
            await b.daemon.reloader.reload("a")


async def test_a_stop_does_not_wait_for_a_reload_that_hangs(bench, trouble) -> None:
    async with bench() as b:
        await b.ready()
        trouble.hang("read")
        b.on_read = lambda: trouble.meet("read")
        b.daemon.reloader.on_sighup()
        await asyncio.sleep(3)
        begun = asyncio.get_running_loop().time()
        assert await b.end() == 0
        assert asyncio.get_running_loop().time() - begun < 2
