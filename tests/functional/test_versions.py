"""Two real versions of one plugin in two real daemons, and clients of both."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

import pytest
from daemon_process import wait_for
from host_processes import HostProcesses
from lamp_apis import NEW, NEWEST, OLD, LampAdminApi, NewLamp, NewLampApi, OldLamp, OldLampApi

from ostler import Client, UnsupportedVersion
from ostler.messaging.wire.request import CallRequest

CONFIG = '[daemon]\nhost = "{host}"\n[services.lamp]\nmanager = "lamp"\n{more}'


@pytest.fixture
def daemon(make_daemon):
    def start(source, version, host, more=""):
        made = make_daemon(CONFIG.format(host=host, more=more))
        made.install("lamp", source, version=version)
        return made.start()

    return start


@pytest.fixture
def old(daemon):
    return daemon(OLD, "1.0", "oldhost")


@pytest.fixture
def new(daemon):
    return daemon(NEW, "1.1", "newhost")


@pytest.fixture
def client():
    made = []

    def connect(daemon):
        made.append(Client(root=str(daemon.root), timeout=20))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def add_member(daemon, host, version, age=0.0):
    """Put the row of another host's service into the table, as other hosts' records come in."""
    with closing(sqlite3.connect(daemon.root / "state" / "ostler.db", isolation_level=None)) as database:
        database.execute(
            "INSERT INTO services (topic, host, manager, rpc_version, state, since, boot_id, boot_time, reported_at) "
            "VALUES ('lamp', ?, 'lamp', ?, 'up', 0, 'elsewhere', 0, ?)",
            (host, version, time.time() - age),
        )
    database.close()


@pytest.mark.failure_mode("RPC", "a client of an older and of a newer version")
def test_a_client_of_an_older_and_of_a_newer_version(old, new, client):
    """Each pair works as far as it can, and is refused by name beyond that."""
    assert OldLampApi(client(old)).switch("desk") == OldLamp("desk", lit=True)
    assert OldLampApi(client(new)).switch("desk") == OldLamp("desk", lit=True)
    assert NewLampApi(client(new)).switch("desk", level=5) == NewLamp("desk", lit=True, level=5)
    assert NewLampApi(client(new)).dim("desk").level == 10

    lamps = NewLampApi(client(old))
    assert lamps.switch("desk", on=False) == NewLamp("desk", lit=False)
    assert (lamps.can_send_version("1.0"), lamps.can_send_version("1.1")) == (True, False)
    for work in (lambda: lamps.dim("desk"), lambda: lamps.switch("desk", level=5)):
        with pytest.raises(UnsupportedVersion, match=r"needs version 1\.1 of lamp, but at most 1\.0 can be used now"):
            work()


def test_what_comes_through_all_the_same_is_refused_by_the_service_itself(old, client):
    with pytest.raises(UnsupportedVersion) as caught:
        client(old).send_request(CallRequest("lamp", "dim", {"name": "desk"}, version="1.1"))
    assert "lamp on oldhost has version 1.0, version 1.1 was requested" in str(caught.value)
    assert caught.value.details["offered"] == "1.0"


def test_another_major_version_is_refused_by_name(daemon, client):
    newest = daemon(NEWEST, "2.0", "newest")
    with pytest.raises(UnsupportedVersion, match=r"lamp on newest has version 2\.0, version 1.0 was requested"):
        OldLampApi(client(newest)).switch("desk")


def test_an_older_member_holds_callers_back_until_it_is_upgraded_or_stale(daemon, client):
    new = daemon(NEW, "1.1", "newhost", '[messaging]\nrpc_pin_grace = "5min"\n')
    add_member(new, "stale", "1.0", age=3600)
    assert NewLampApi(client(new)).dim("desk").level == 10
    assert client(new).call("lamp", "ask") == "True"

    add_member(new, "behind", "1.0")
    one = client(new)
    wait_for(lambda: NewLampApi(one).upgrading().upgrading, "the daemon to look at its records again")
    with pytest.raises(UnsupportedVersion, match=r"behind has 1\.0; upgrade lamp on behind"):
        NewLampApi(client(new)).dim("desk")
    assert NewLampApi(client(new)).on(host="newhost").dim("desk").level == 10
    assert client(new).call("lamp", "ask") == "False"

    (row,) = [row for row in new.json("service", "versions") if row["topic"] == "lamp"]
    assert (row["upgrading"], row["cap"], row["newest"]) == (True, "1.0", "1.1")
    assert [holder["host"] for holder in row["pinned_by"]] == ["behind"]
    assert {member["host"]: member["counts"] for member in row["members"]} == {
        "newhost": True, "behind": True, "stale": False,
    }  # fmt: skip
    assert "behind 1.0 (up)" in new.command("service", "versions", "lamp").stdout


def test_a_pin_of_the_configuration_holds_and_a_reload_takes_it_away(daemon, client):
    new = daemon(NEW, "1.1", "newhost", '[messaging]\nrpc_pins = { lamp = "1.0" }\n')
    with pytest.raises(UnsupportedVersion, match=r"pinned by `rpc_pins` in \[messaging\]; raise the pin"):
        NewLampApi(client(new)).dim("desk")
    assert NewLampApi(client(new)).switch("desk").lit
    assert client(new).call("lamp", "ask") == "False"
    new.configure(CONFIG.format(host="newhost", more='[messaging]\nrpc_pins = { lamp = "auto" }\n'))
    new.command("reload")
    assert NewLampApi(client(new)).dim("desk").level == 10
    assert client(new).call("lamp", "ask") == "True"
    new.configure(CONFIG.format(host="newhost", more='[messaging]\nrpc_pins = { lamp = "one" }\n'))
    assert "auto" in new.command("check", check=78).stderr


def test_a_namespace_has_a_version_of_its_own_and_is_described_beside_the_rest(new, client):
    admin = LampAdminApi(client(new))
    assert admin.reset() == "lamp"
    assert admin.upgrading().cap == "2.0"
    assert new.json("call", "lamp", "admin.reset") == "lamp"
    described = {each["method"]: each for each in new.json("describe", "lamp")}
    assert list(described) == ["ask", "dim", "elsewhere", "switch", "admin.reset"]
    assert described["admin.reset"]["topic_version"] == "2.0"
    assert described["switch"]["arguments_schema"]["$defs"]["Arguments"]["properties"]["level"] == {
        "type": "integer", "default": 100,
    }  # fmt: skip
    shown = new.command("call", "lamp", "switch", "--help").stdout
    assert "role operator; since version 1.0 (lamp is 1.1)" in shown
    assert "How bright, in percent." in shown


def test_what_a_release_of_the_plugin_offered_is_compared_with_the_next(make_daemon, tmp_path):
    one, other = make_daemon(), make_daemon()
    one.install("lamp", OLD)
    other.install("lamp", NEW, version="1.1")
    file = tmp_path / "lamp-1.0.json"
    one.command("plugin", "api", "lamp", "--write", str(file), env=one.environ)
    assert json.loads(file.read_text())["namespaces"][""]["rpc_version"] == "1.0"
    shown = other.command("plugin", "api", "lamp", "--against", str(file), env=other.environ).stdout
    assert "lamp.dim was added: breaks new clients of an old service; requires a minor version" in shown
    assert "lamp.admin was added" in shown
    back = other.command("plugin", "api", "lamp", "--write", str(tmp_path / "lamp-1.1.json"), env=other.environ).stdout
    assert "The interface of lamp was written to" in back
    shown = one.command("plugin", "api", "lamp", "--against", str(tmp_path / "lamp-1.1.json"), env=one.environ, check=1)
    assert "wrong: lamp has version 1.0, but its changes require 2.0" in shown.stdout


class VersionedHosts(HostProcesses):
    """Daemons that know each other, each with the lamp plugin in a version of its own."""

    def configure(self, name, topics, *, known=None, more=""):
        """Install the version that stands for the topics."""
        self[name].daemon.install("lamp", {"old": OLD, "new": NEW}[topics])
        super().configure(name, "", known=known, more='[services.lamp]\nmanager = "lamp"\nreport_interval = 1\n')


def test_a_service_uses_what_the_others_understand_and_more_when_they_are_upgraded(make_daemon):
    fleet = VersionedHosts(make_daemon)
    fleet.start(ahead="new", behind="old")
    ahead, behind = fleet["ahead"].daemon, fleet["behind"].daemon
    wait_for(lambda: ahead.call("lamp", "ask") == "False", "ahead to hear of behind", more=lambda: ahead.log)
    assert ahead.call("lamp", "elsewhere", at="behind", what="switch") == 100
    with pytest.raises(UnsupportedVersion, match=r"lamp\.dim needs version 1\.1 of lamp, but at most 1\.0 can be used"):
        ahead.call("lamp", "elsewhere", at="behind", what="dim")
    assert ahead.call("lamp", "elsewhere", at="ahead", what="dim") == 10
    assert [row["upgrading"] for row in ahead.json("service", "versions", "lamp")] == [True]

    behind.stop()
    (behind.plugins / "lamp_module.py").write_text(NEW, encoding="utf-8")
    fleet["behind"].start()
    wait_for(lambda: ahead.call("lamp", "ask") == "True", "ahead to hear of the upgrade", more=lambda: ahead.log)
    assert ahead.call("lamp", "elsewhere", at="behind", what="dim") == 10
    assert [row["upgrading"] for row in ahead.json("service", "versions", "lamp")] == [False]
