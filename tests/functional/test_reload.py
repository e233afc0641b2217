"""Services, backends and plugins are added, changed, broken and removed while clients of the others go on."""

from __future__ import annotations

import os

import pytest
from daemon_process import wait_for
from reload_load import Load, footprint

ROUNDS = int(os.environ.get("OSTLER_RELOADS", "40"))
"""How many reloads the longest test makes: `make reloads` makes a thousand."""
_MEMORY_GROWTH = 12 * 2**20

HOST = '[daemon]\nhost = "node1"\n'
VOLUME = '[services.volume]\nmanager = "volume"\nscheduler = ""\n'
LOCAL = '[services.volume.drivers.local]\ndriver = "file"\npath = "{root}/local"\n'
SECOND = '[services.volume.drivers.second]\ndriver = "file"\npath = "{root}/second"\n'
ECHO = '[services.echo]\nmanager = "faulty_managers:EchoManager"\n'
BASE = HOST + VOLUME + LOCAL + ECHO

BELL = """
from ostler import Context, Manager, exposed, hookimpl, ManagerOptions, Field

class Bell(Manager):
    class Options(ManagerOptions):
        tone: str = Field("ding", help="What it says", reload="service")

    def init_host(self, service_id, added_to_cluster):
        if self.options.tone == "broken":
            raise OSError("the bell is broken")

    @exposed(role="viewer", changes=False)
    def ring(self, ctx: Context) -> str:
        return self.options.tone

@hookimpl
def ostler_managers():
    return {"bell": Bell}
"""


def list_volumes(client):
    client.call("volume", "list_volumes")


def say(client):
    assert client.call("echo", "echo", text="x")["text"].endswith("x")


def steps(verdict):
    return [f"{step['action']} {step['subject']}: {step['outcome']}" for step in verdict["steps"] if step["options"]]


def backends(daemon):
    return {row["name"]: row["state"] for row in daemon.json("driver", "list", "volume")}


@pytest.mark.failure_mode("Life", "a reload that fails at any of its steps")
def test_a_backend_is_added_changed_broken_and_removed_under_load(make_daemon) -> None:
    daemon = make_daemon(BASE).start()
    load = Load(daemon.root, [list_volumes, list_volumes, say, say])
    with load.running():
        daemon.configure(BASE + SECOND)
        assert steps(daemon.json("reload")) == ["add driver volume/second: done"]
        daemon.command("volume", "create", "one", "--size", "1MiB", "--backend", "second")
        daemon.configure(BASE + SECOND + "oversubscription = 2.0\n")
        assert steps(daemon.json("reload")) == ["initialise driver volume/second: done"]
        load.wait_for_calls(3)
        daemon.configure(BASE + SECOND.replace("/second", "/elsewhere"))
        failed = daemon.json("reload", check=1)
        assert steps(failed) == ["initialise driver volume/second: failed"]
        assert "everything runs as before" in failed["summary"]
        assert backends(daemon) == {"local": "ready", "second": "ready"}
        assert daemon.json("volume", "show", "one")["state"] == "available"
        daemon.command("volume", "delete", "one")
        daemon.configure(BASE)
        assert steps(daemon.json("reload")) == ["remove driver volume/second: done"]
        assert backends(daemon) == {"local": "ready"}
        load.wait_for_calls(3)
    assert load.failed == []


@pytest.mark.failure_mode("Life", "a reload that fails at any of its steps")
@pytest.mark.failure_mode("Plugins", "one that is installed while the daemon runs")
def test_a_service_of_a_plugin_installed_a_moment_before_under_load(make_daemon) -> None:
    daemon = make_daemon(BASE)
    daemon.install("other", "")  # so that the directory is on the path
    daemon.start()
    bell = '[services.bell]\nmanager = "bell"\n'
    load = Load(daemon.root, [list_volumes, say, say, say])
    with load.running():
        daemon.configure(BASE + bell)
        assert "bell" in daemon.command("reload", check=78).stderr
        daemon.install("bells", BELL)
        plan = daemon.json("reload", "--plan")
        assert [f"{step['action']} {step['subject']}" for step in plan["steps"]] == ["add service bell"]
        assert "bells" not in [row["name"] for row in daemon.json("plugin", "list")]
        assert steps(daemon.json("reload")) == ["add service bell: done"]
        assert daemon.call("bell", "ring") == "ding"
        assert "bells" in [row["name"] for row in daemon.json("plugin", "list")]
        daemon.configure(BASE + bell + 'tone = "dong"\n')
        assert steps(daemon.json("reload")) == ["restart service bell: done"]
        assert daemon.call("bell", "ring") == "dong"
        daemon.configure(BASE + bell + 'tone = "broken"\n')
        assert "the bell is broken" in daemon.json("reload", check=1)["summary"]
        assert daemon.call("bell", "ring") == "dong"
        daemon.configure(BASE)
        assert steps(daemon.json("reload")) == ["remove service bell: done"]
        assert "not found" in daemon.command("call", "bell", "ring", check=None).stderr
        load.wait_for_calls(3)
    assert load.failed == []


@pytest.mark.failure_mode("Life", "an option that needs a new process")
def test_what_needs_a_new_process_is_named_until_the_restart(make_daemon) -> None:
    daemon = make_daemon(BASE).start()
    daemon.configure(BASE.replace("node1", "node2"))
    assert '"node1" -> "node2"' in daemon.command("reload").stdout
    assert "restart needed for daemon.host" in daemon.command("status").stdout
    (waiting,) = daemon.json("config", "diff", "--running")
    assert (waiting["option"], waiting["running"], waiting["files"]) == ("daemon.host", "node1", "node2")
    values = {row["path"]: row["value"] for row in daemon.json("config", "cat", "--running")}
    assert values["daemon.host"] == "node1"
    daemon.notices.wait(lambda fields: 'daemon.host ("node1" -> "node2")' in fields.get("STATUS", ""))
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.json("config", "diff", "--running") == []


@pytest.mark.timeout(3600)
@pytest.mark.failure_mode("Life", "a reload that fails at any of its steps")
@pytest.mark.failure_mode("Life", "reloads in their hundreds under load")
def test_many_reloads_under_load_of_eight_clients_leave_nothing_behind(make_daemon) -> None:
    daemon = make_daemon(BASE).start()
    extra = '[services.more]\nmanager = "faulty_managers:EchoManager"\n'
    rounds = [
        (BASE + SECOND, True),
        (BASE + SECOND + extra, True),
        (BASE + SECOND.replace("{root}/second", "/proc/none") + extra, False),
        (BASE + extra + "workers = 3\n", True),
        (BASE, True),
    ]
    load = Load(daemon.root, [list_volumes, say] * 4)
    with load.running():
        before = footprint(daemon)
        for number in range(ROUNDS):
            if number == len(rounds) * 4:
                before = footprint(daemon)  # warm
            config, works = rounds[number % len(rounds)]
            daemon.configure(config)
            verdict = daemon.call("ostler", "reload")
            assert verdict["ok"] is works, verdict
            assert_true(daemon, verdict, works=works, number=number % len(rounds))
            assert load.failed == []
        wait_for(lambda: footprint(daemon).threads <= before.threads + 6, "threads to end", timeout=20)
    after = footprint(daemon)
    assert after.threads <= before.threads + 6
    assert after.descriptors <= before.descriptors + 6
    assert after.memory <= before.memory + _MEMORY_GROWTH
    assert load.failed == []


def assert_true(daemon, verdict, *, works: bool, number: int) -> None:
    """Hold a verdict against what runs: it must not say more or less."""
    expected = [
        ({"local", "second"}, set()),
        ({"local", "second"}, {"more"}),
        ({"local", "second"}, {"more"}),
        ({"local"}, {"more"}),
        ({"local"}, set()),
    ][number]
    services = {row["topic"]: row for row in daemon.status()["services"] if row["state"] != "gone"}
    names = {driver["name"] for driver in services["volume"]["drivers"] if driver["state"] == "ready"}
    assert (names, set(services) - {"volume", "echo"}) == expected, verdict
    outcomes = {step["outcome"] for step in verdict["steps"] if step["options"]}
    assert outcomes == ({"done"} if works else {"failed"}), verdict
