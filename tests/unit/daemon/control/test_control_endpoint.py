import asyncio
import time

import pytest

from ostler.daemon.control.control_endpoint import ControlEndpoint
from ostler.errors import Conflict, InvalidInput, NotFound, NotPermitted, OstlerError, ServiceNotFound
from ostler.messaging import Endpoint
from ostler.store import ServiceRecords, Store
from ostler.types import DaemonStatus
from support.waiting import until

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


LAMP = '[services.lamp]\nmanager = "lamp"\n'
ACCESS = '[access]\nviewer = ["501"]\noperator = ["502"]\nadmin = ["503"]\n'

# What each method needs, and what it is called with here.
METHODS = {
    "status": ("viewer", {}),
    "echo": ("viewer", {"text": "x"}),
    "whoami": ("viewer", {}),
    "hello": ("viewer", {"name": "node2"}),
    "service_list": ("viewer", {}),
    "service_show": ("viewer", {"topic": "lamp"}),
    "service_versions": ("viewer", {"topic": "lamp"}),
    "plugin_list": ("viewer", {}),
    "lock_list": ("viewer", {}),
    "event_handlers": ("viewer", {}),
    "periodic_list": ("viewer", {}),
    "describe": ("viewer", {"topic": "lamp"}),
    "event_topics": ("viewer", {}),
    "events_since": ("viewer", {"positions": [["lamp", 0, 0]]}),
    "capabilities": ("viewer", {}),
    "host_report": ("viewer", {}),
    "wait_ready": ("viewer", {}),
    "traffic": ("viewer", {}),
    "metrics": ("viewer", {}),
    "health": ("viewer", {}),
    "reload_plan": ("admin", {}),
    "audit": ("admin", {}),
    "config": ("operator", {}),
    "dump": ("operator", {}),
    "log_levels": ("operator", {}),
    "log_follow": ("operator", {}),
    "db_check": ("operator", {}),
    "service_disable": ("operator", {"topic": "lamp", "reason": "moving"}),
    "service_enable": ("operator", {"topic": "lamp"}),
    "log_level": ("admin", {}),
    "reload": ("admin", {}),
    "db_backup": ("admin", {}),
    "db_vacuum": ("admin", {}),
    "service_drain": ("admin", {"topic": "lamp"}),
    "service_resume": ("admin", {"topic": "lamp"}),
    "service_stop": ("admin", {"topic": "lamp"}),
    "service_start": ("admin", {"topic": "lamp"}),
    "service_restart": ("admin", {"topic": "lamp"}),
    "service_freeze": ("admin", {"topic": "lamp", "reason": "moving"}),
    "service_thaw": ("admin", {"topic": "lamp"}),
    "service_force_down": ("operator", {"topic": "lamp", "on_host": "node9", "reason": "its power is cut"}),
    "service_delete": ("operator", {"topic": "lamp", "on_host": "gone"}),
}
UIDS = {"viewer": 501, "operator": 502, "admin": 503}


async def ask(b, method, uid=None, **arguments):
    async with b.client(uid) as client:
        # `topic` is also the name of an argument of these methods.
        return await client.call("ostler", method, **arguments)


@pytest.mark.parametrize(("role", "uid"), UIDS.items())
async def test_whoami_says_who_asks_and_the_highest_role(bench, role, uid) -> None:
    async with bench(ACCESS + LAMP) as b:
        await b.ready()
        found = await ask(b, "whoami", uid)
        assert (found["name"], found["role"], found["uid"], found["key"]) == (f"uid {uid}", role, uid, "")


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_needs_its_role_and_no_more(bench, method) -> None:
    role, arguments = METHODS[method]

    async with bench(ACCESS + LAMP) as b:
        await b.ready()
        roles = list(UIDS)
        for lower in roles[: roles.index(role)]:
            with pytest.raises(NotPermitted, match=role):
                await ask(b, method, UIDS[lower], **arguments)
        try:
            await ask(b, method, UIDS[role], **arguments)
        except NotPermitted as error:
            raise AssertionError(error) from error
        except OstlerError:
            assert method in ("db_backup", "log_follow", "service_delete", "service_force_down")


def test_what_the_daemon_offers_passes_the_checks_that_its_start_leaves_out():
    endpoint = Endpoint("ostler", "here", object.__new__(ControlEndpoint), None, ControlEndpoint.rpc_version)
    assert set(METHODS) <= set(endpoint.methods)


async def test_no_method_was_forgotten(bench) -> None:
    async with bench() as b:
        await b.ready()
        found = {row["method"] for row in await ask(b, "describe", topic="ostler") if not row["namespace"]}
        assert found == {
            *METHODS, "periodic_run", "periodic_pause", "periodic_resume", "periodic_show", "relay",
            "relay_stream", "watch_host",
        }  # fmt: skip


async def test_a_relayed_call_to_a_host_that_is_nowhere_names_those_there_are(bench) -> None:
    async with bench() as b:
        await b.ready()
        async with b.client() as client:
            with pytest.raises(ServiceNotFound, match=r"host 'node9' not found for lamp\.list; available: node1"):
                await client.call("ostler", "relay", on_host="node9", topic="lamp", method="list")


async def test_the_status_shows_the_daemon_at_one_glance(bench) -> None:
    async with bench() as b:
        await b.ready()
        await asyncio.sleep(1)
        async with b.client() as client:
            status = await client.on(type=DaemonStatus).call("ostler", "status")
        assert (status.host, str(status.state), status.not_well) == ("node1", "up", [])
        (lamp,) = status.services
        assert (lamp.topic, lamp.here, lamp.up, lamp.beat > 0) == ("lamp", True, True, True)
        assert status.memory > 0


async def test_a_service_is_disabled_with_a_reason_and_by_whom_over_a_restart(bench) -> None:
    async with bench() as b:
        await b.ready()
        await asyncio.sleep(1)
        with pytest.raises(InvalidInput, match="reason"):
            await ask(b, "service_disable", topic="lamp", reason=" ")
        row = await ask(b, "service_disable", topic="lamp", reason="moving")
        assert (row["enabled"], row["disabled_reason"], row["disabled_by"][:4]) == (False, "moving", "uid ")
        assert any("disabled" in line for line in (await ask(b, "status"))["not_well"])
    async with bench() as b:
        await b.ready()
        await asyncio.sleep(1)
        assert (await ask(b, "service_show", topic="lamp"))["enabled"] is False
        assert (await ask(b, "service_enable", topic="lamp"))["enabled"] is True


async def test_the_record_of_a_host_that_is_gone_is_forgotten_and_ours_is_not(bench) -> None:
    async with bench() as b:
        await b.ready()
        store = b.daemon.store
        other = ServiceRecords(store, b.clock, "gone")
        await store.awrite(lambda: other.register("lamp", "lamp", "1.0"))
        await ask(b, "service_delete", topic="lamp", on_host="gone")
        assert [row["host"] for row in await ask(b, "service_list")] == [b.daemon.host]
        with pytest.raises(NotFound, match="gone"):
            await ask(b, "service_delete", topic="lamp", on_host="gone")
        with pytest.raises(Conflict, match="is configured in this daemon"):
            await ask(b, "service_delete", topic="lamp")


async def test_what_is_not_there_is_said_by_name(bench) -> None:
    async with bench() as b:
        await b.ready()
        for method, arguments in {
            "service_show": {"topic": "lemp"},
            "service_enable": {"topic": "lemp"},
            "service_drain": {"topic": "lemp"},
            "periodic_run": {"service": "lamp", "task": "nothing"},
            "periodic_pause": {"service": "lemp", "task": "nothing"},
            "periodic_resume": {"service": "lemp", "task": "nothing"},
            "periodic_show": {"service": "lamp", "task": "nothing"},
        }.items():
            with pytest.raises(NotFound, match=r"lemp|nothing"):
                await ask(b, method, **arguments)
        with pytest.raises(NotFound, match="node9"):
            await ask(b, "service_show", topic="lamp", on_host="node9")


async def test_a_drain_waits_says_what_still_runs_and_can_be_asked_for_again(bench, trouble) -> None:
    gate = trouble.hang("work")
    async with bench() as b:
        await b.ready()
        async with b.client() as client:
            working = asyncio.ensure_future(client.on(timeout=100).call("lamp", "work"))
            await asyncio.sleep(1)
            (left,) = await ask(b, "service_drain", topic="lamp", wait=3.0)
            assert left.startswith("lamp.work on lamp-")
            gate.set()
            assert await ask(b, "service_drain", topic="lamp", wait=3.0) == []
            assert await working == "done"
        row = await ask(b, "service_show", topic="lamp")
        assert (row["state"], row["why"][:11]) == ("draining", "drained by ")
        assert await b.end() == 0


async def test_a_service_that_has_failed_cannot_be_drained(bench, trouble) -> None:
    trouble.errors["init_host lamp"] = OSError("no disk")
    async with bench(LAMP + "required = false\n") as b:
        await b.ready()
        with pytest.raises(Conflict, match="service lamp is failed"):
            await ask(b, "service_drain", topic="lamp")
        assert (await ask(b, "service_show", topic="lamp"))["state"] == "failed"


async def test_the_database_is_checked_and_copied(bench, tmp_path) -> None:
    async with bench() as b:
        await b.ready()
        assert await ask(b, "db_check") == []
        sizes = await ask(b, "db_vacuum")
        assert 0 < sizes["after"] <= sizes["before"]
        (tmp_path / "restored").mkdir()
        async with b.client(None) as client:
            pieces = [piece async for piece in client.on(type=bytes).stream("ostler", "db_backup")]
        (tmp_path / "restored" / "ostler.db").write_bytes(b"".join(pieces))
        restored = Store.open(tmp_path / "restored" / "ostler.db")
        assert restored.check() == []
        restored.close()


async def test_the_dump_holds_threads_tasks_queues_services_and_the_masked_configuration(bench) -> None:
    async with bench() as b:
        await b.ready()
        dump = await ask(b, "dump")
        assert {"daemon", "services", "messages", "store", "tasks", "threads", "configuration"} <= dump.keys()
        assert dump["services"]["lamp"]["state"] == "up"
        assert any(name.startswith("services: report state") for name in dump["tasks"])
        assert "***" in dump["configuration"]["services.lamp.key"]


async def until_reached(trouble, step):
    """Let threads of the start work until they reach a step: the time of the loop does not wait for them."""
    await until(lambda: time.sleep(0.001) or step in trouble.calls)


async def test_wait_ready_returns_when_the_start_has_ended(bench, trouble) -> None:
    gate = trouble.hang("init_host lamp")
    async with bench() as b:
        b.start()
        await until_reached(trouble, "init_host lamp")
        waiting = asyncio.ensure_future(ask(b, "wait_ready"))
        await asyncio.sleep(2)
        assert not waiting.done()
        gate.set()
        assert (await waiting)["state"] == "up"


async def test_wait_ready_says_when_the_start_has_failed(bench, trouble) -> None:
    gate = trouble.hang("init_host lamp")
    trouble.errors["init_host lamp"] = OSError("no disk")
    async with bench(LAMP + "required = true\n") as b:
        b.start()
        await until_reached(trouble, "init_host lamp")
        waiting = asyncio.ensure_future(ask(b, "wait_ready"))
        await asyncio.sleep(1)
        gate.set()
        with pytest.raises(OstlerError, match="no disk"):
            await waiting


async def test_a_text_that_others_will_be_shown_has_a_length(bench) -> None:
    async with bench() as b:
        await b.ready()
        with pytest.raises(InvalidInput, match="the reason has 9000000 characters, the limit is 1000"):
            await ask(b, "service_disable", topic="lamp", reason="x" * 9_000_000)
        for method, arguments in (
            ("service_show", {"topic": "x" * 300}),
            ("service_enable", {"topic": "lamp", "on_host": "x" * 300}),
            ("log_level", {"level": "info", "logger": "x" * 300}),
            ("audit", {"who": "x" * 300}),
            ("describe", {"topic": "x" * 300}),
            ("periodic_run", {"service": "lamp", "task": "x" * 300}),
            ("relay", {"on_host": "x" * 300, "topic": "lamp", "method": "m"}),
        ):
            with pytest.raises(InvalidInput, match="the limit is"):
                async with b.client() as client:
                    await client.call("ostler", method, **arguments)
        assert (await ask(b, "status"))["services"][0]["enabled"]


async def test_what_was_drained_takes_calls_again_by_resume_and_by_enable(bench) -> None:
    async with bench(ACCESS + LAMP) as b:
        await b.ready()
        for way in ("service_resume", "service_enable"):
            assert await ask(b, "service_drain", topic="lamp") == []
            assert (await ask(b, "service_show", topic="lamp"))["state"] == "draining"
            assert (await ask(b, way, topic="lamp"))["state"] == "up"
        await ask(b, "service_drain", topic="lamp")
        found = await ask(b, "service_enable", UIDS["operator"], topic="lamp")
        assert (found["enabled"], found["state"]) == (True, "draining"), "a drain is for administrators, and its end"


async def test_a_service_is_stopped_and_started_and_its_state_says_by_whom(bench) -> None:
    async with bench(ACCESS + LAMP) as b:
        await b.ready()
        assert await ask(b, "service_stop", topic="lamp") == []
        found = await ask(b, "service_show", topic="lamp")
        assert (found["state"], found["why"][:15]) == ("stopped", "stopped by uid ")
        assert "service lamp is stopped: stopped by uid" in str((await ask(b, "status"))["not_well"])
        assert (await ask(b, "service_start", topic="lamp"))["state"] == "up"
        assert (await ask(b, "service_restart", topic="lamp"))["state"] == "up"
        assert (await ask(b, "status"))["not_well"] == []
        with pytest.raises(InvalidInput, match="`wait` is -1"):
            await ask(b, "service_stop", topic="lamp", wait=-1.0)


async def test_what_waits_for_a_new_process_is_named_with_both_values_everywhere(bench) -> None:
    async with bench() as b:
        await b.ready()
        b.configure('[daemon]\nhost = "node2"\n' + LAMP + "workers = 3\n")
        (waiting,) = (await ask(b, "reload_plan"))["needs_restart"]
        assert (waiting["path"], waiting["old"], waiting["new"]) == ("daemon.host", "node1", "node2")
        assert (await ask(b, "reload"))["needs_restart"] == [waiting]
        assert (await ask(b, "service_show", topic="lamp"))["workers"] == 3
        status = await ask(b, "status")
        assert (status["needs_restart"], status["host"]) == ([waiting], "node1")
        assert 'restart needed for daemon.host ("node1" -> "node2")' in b.daemon.summary()
        values = {row["path"]: row["value"] for row in await ask(b, "config")}
        assert (values["daemon.host"], values["services.lamp.workers"]) == ("node1", 3)


async def test_what_is_in_no_configuration_is_gone_after_a_crash_and_is_no_trouble(bench) -> None:
    async with bench() as b:
        await b.ready()
        store = b.daemon.store
        crashed = ServiceRecords(store, b.clock, "node1")
        await store.awrite(lambda: crashed.register("door", "lamp", "1.0"))
        await ask(b, "reload")
        gone = await ask(b, "service_show", topic="door")
        assert (gone["state"], gone["up"]) == ("gone", False)
        assert (await ask(b, "status"))["not_well"] == []
        with pytest.raises(NotFound, match="door on node1 is gone"):
            await ask(b, "service_enable", topic="door")
        await ask(b, "service_delete", topic="door")
        assert [row["topic"] for row in await ask(b, "service_list")] == ["lamp"]


async def test_a_service_is_frozen_and_thawed_with_who_and_why(bench) -> None:
    async with bench(LAMP) as b:
        await b.ready()
        with pytest.raises(InvalidInput, match="cannot be frozen without a reason"):
            await ask(b, "service_freeze", topic="lamp", reason=" ")
        row = await ask(b, "service_freeze", topic="lamp", reason="a new disk")
        assert (row["state"], row["up"], row["enabled"]) == ("up", True, True)
        assert (row["frozen"]["reason"], bool(row["frozen"]["by"]), row["frozen"]["since"] > 0) == (
            "a new disk", True, True,
        )  # fmt: skip
        (line,) = [each for each in (await ask(b, "status"))["not_well"] if "frozen" in each]
        assert line.startswith("service lamp is frozen by ")
        assert line.endswith(": a new disk")
        # Not what an operator enables, and not a drain.
        assert (await ask(b, "service_enable", topic="lamp"))["frozen"] == row["frozen"]
        assert (await ask(b, "service_thaw", topic="lamp"))["frozen"] is None
        assert (await ask(b, "service_thaw", topic="lamp"))["frozen"] is None


async def test_a_service_of_a_dead_host_is_forced_down_until_that_is_undone(bench) -> None:
    async with bench(LAMP) as b:
        await b.ready()
        store, clock = b.daemon.store, b.clock
        await store.awrite(lambda: ServiceRecords(store, clock, "node9").register("lamp", "lamp", "1.0"))
        with pytest.raises(Conflict, match="lamp on node1 is here and cannot be forced down"):
            await ask(b, "service_force_down", topic="lamp", on_host="node1", reason="x")
        with pytest.raises(NotFound, match="service door not found on node9"):
            await ask(b, "service_force_down", topic="door", on_host="node9", reason="x")
        with pytest.raises(InvalidInput, match="cannot be forced down without a reason"):
            await ask(b, "service_force_down", topic="lamp", on_host="node9")
        found = await ask(b, "service_force_down", topic="lamp", on_host="node9", reason="its power is cut")
        assert (found["service"]["up"], found["service"]["forced_down"]["reason"]) == (False, "its power is cut")
        lines = (await ask(b, "status"))["not_well"]
        assert any(each.startswith("service lamp on node9 was forced down by ") for each in lines)
    async with bench(LAMP) as b:  # kept over a restart
        await b.ready()
        assert b.daemon.parts.messaging.router.forced_down["lamp", "node9"].reason == "its power is cut"
        found = await ask(b, "service_force_down", topic="lamp", on_host="node9", undo=True)
        assert (found["service"]["state"], found["service"]["forced_down"]) == ("gone", None), "it is no peer"


async def test_a_service_disabled_in_the_configuration_is_told_apart_from_none(bench) -> None:
    async with bench(LAMP + '[services.door]\nmanager = "lamp"\nenabled = false\n') as b:
        await b.ready()
        with pytest.raises(NotFound, match="service door is not started on node1: its configuration has") as caught:
            await ask(b, "service_show", topic="door")
        assert "`enabled = true` in [services.door]" in caught.value.hint
        with pytest.raises(NotFound, match="service fan not found"):
            await ask(b, "service_show", topic="fan")
        assert (await ask(b, "service_show", topic="lamp"))["causes"] == []
        await ask(b, "service_disable", topic="lamp", reason="moving")
        (cause,) = (await ask(b, "service_show", topic="lamp"))["causes"]
        assert (cause["kind"], cause["remedy"]) == ("disabled", "`ostler service enable lamp`")
