"""Daemons on several hosts: calls between them, keys, and what a caller sees when something is cut."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import NOBODY, OSTLER, DaemonProcess, wait_for
from host_processes import HostProcesses, NamespaceNetwork, free_ports, no_namespaces
from remote_calls_manager import CallerReport

from ostler import AsyncClient, Client, Event, Retry
from ostler.errors import (
    Busy,
    Cancelled,
    Conflict,
    ConnectionLost,
    DaemonNotRunning,
    Draining,
    NotPermitted,
    OperationInterrupted,
    OstlerError,
    ServiceNotFound,
)
from ostler.messaging.tcp.curve import generate_keys

SOON = 6.0
"""Seconds within which a caller knows that the other host cannot be reached; the intervals here are short."""


@pytest.fixture(params=["here", pytest.param("cables", marks=pytest.mark.root)])
def hosts(request: pytest.FixtureRequest, make_daemon: Callable[..., DaemonProcess]) -> Iterator[HostProcesses]:
    """Return hosts that have not been started: on 127.0.0.1, and in network namespaces."""
    if request.param == "here":
        yield HostProcesses(make_daemon)
        return
    if why := no_namespaces():
        pytest.skip(why)
    cables = NamespaceNetwork()
    try:
        yield HostProcesses(make_daemon, cables)
    finally:
        cables.close()


only_cables = pytest.mark.parametrize("hosts", [pytest.param("cables", marks=pytest.mark.root)], indirect=True)
only_here = pytest.mark.parametrize("hosts", ["here"], indirect=True)


def knows(hosts: HostProcesses, name: str, other: str, up: bool = True) -> None:
    """Wait until a host knows that another is there, or is not."""
    daemon = hosts[name].daemon

    def look() -> bool:
        return daemon.call("ostler", "dump")["messages"]["peers"][other]["up"] is up

    wait_for(look, f"{name} to know that {other} is {'there' if up else 'away'}", more=lambda: daemon.log)


def working(hosts: HostProcesses, topic: str) -> set[str]:
    rows = hosts["node1"].daemon.call("ostler", "service_list")
    return {row["host"] for row in rows if row["topic"] == topic and row["state"] == "up"}


def in_background(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin some work on a thread; return what waits for its result."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()

    def result() -> Any:
        thread.join(40)
        assert found, "it has not ended"
        return found[0]

    return result


def test_a_service_calls_one_on_another_host_by_its_name_or_wherever_it_is(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="talk volume", node3="volume")
    knows(hosts, "node1", "node2")
    knows(hosts, "node1", "node3")
    ask, ask_for = hosts["node1"].daemon.call, hosts["node1"].daemon.call_typed
    wait_for(lambda: working(hosts, "volume") == {"node2", "node3"}, "both members to be up")
    said = ask_for(CallerReport, "talk", "ask", what="talk", at="node2")
    assert (said.host, said.who) == ("node2", "key:node1")
    assert 0 < said.left <= 20, "what is left of the caller's deadline"
    outer = ask_for(CallerReport, "talk", "where")
    assert outer.host == "node1"
    assert {ask_for(CallerReport, "talk", "aask", what="volume").host for _ in range(4)} == {"node2", "node3"}
    assert ask("talk", "tell_all", what="volume") == 2
    assert ask("talk", "tell_all", what="talk") == 2
    rows = {(row["topic"], row["host"]): row["up"] for row in hosts["node1"].daemon.json("service", "list")}
    assert rows[("volume", "node3")] is True
    assert rows[("volume", "node2")] is True
    with pytest.raises(ServiceNotFound, match=r"host 'node9' not found.*node1, node2, node3"):
        ask("talk", "ask", what="talk", at="node9")
    assert ask("talk", "count_to", what="volume", most=3) == [0, 1, 2]
    daemon = hosts["node1"].daemon
    assert daemon.json("call", "talk", "where", "--host", "node2")["who"] == "key:node1"
    assert daemon.json("call", "volume", "work", "seconds=0.1", "--host", "node3") == "node3"
    assert ask("talk", "count_slowly", what="volume", at="node3", most=50) == list(range(50))
    words = [OSTLER, "--root", str(daemon.root), "call", "volume", "numbers", "--host", "node3"]
    with subprocess.Popen(words, env=daemon.environ, stdout=subprocess.PIPE, text=True) as reading:
        assert reading.stdout is not None
        assert [reading.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
        reading.send_signal(signal.SIGINT)
        reading.stdout.close()
        assert reading.wait(20) in (0, 130)
    assert "accepted" in daemon.command("cast", "volume", "work", "seconds=0", "--host", "node3").stdout
    wait_for(lambda: not in_flight(hosts, "node3"), "the ends of the streams on node3")
    twice = ("call", "ostler", "relay", "--host", "node2", "on_host=node1", "topic=talk", "method=where")
    assert "and only once" in daemon.command(*twice, check=4).stderr
    assert "host 'node9' not found" in daemon.command("call", "talk", "where", "--host", "node9", check=1).stderr
    assert "did you mean 'work'" in daemon.command("call", "volume", "wrk", "--host", "node3", check=1).stderr


@only_here
def test_programs_and_the_command_reach_the_same_hosts_as_managers(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="talk volume", node3="volume")
    knows(hosts, "node1", "node2")
    knows(hosts, "node1", "node3")
    wait_for(lambda: working(hosts, "volume") == {"node2", "node3"}, "both members to be up")
    daemon = hosts["node1"].daemon
    both = {"node2", "node3"}
    with Client(root=str(daemon.root), timeout=20) as client:
        assert client.on(host="node2", type=CallerReport).call("talk", "where").who == "key:node1"
        assert {client.on(type=CallerReport).call("volume", "where").host for _ in range(4)} == both
        assert client.on(type=CallerReport).call("talk", "where").host == "node1", "a topic that is here stays here"
        client.cast("volume", "work", seconds=0.01)
        client.on(host="node3").cast("volume", "work", seconds=0.01)
        assert client.fanout("volume", "where") == 2
        assert client.fanout("talk", "where") == 2, "the one here is one of them"
        with client.on(type=int, credit=4).stream("volume", "numbers") as numbers:
            assert [next(numbers) for _ in range(50)] == list(range(50))
        assert client.on(host="node3", type=bytes).call("volume", "fill", size=200_000) == bytes(200_000)
        retry = Retry(attempts=5, on=(ConnectionLost, Busy))
        assert client.on(retry=retry).call("volume", "work", seconds=0.01) in both
        with pytest.raises(Conflict, match="does not open with"):
            client.call("volume", "unlock", code="canary-7", name="desk")
        with pytest.raises(
            ServiceNotFound, match=r"host 'node9' not found for talk\.where; available: node1, node2, node3"
        ):
            client.on(host="node9").call("talk", "where")
        with pytest.raises(ServiceNotFound, match="service 'none' not found on node1"):
            client.call("none", "where")

    async def the_same() -> None:
        async with AsyncClient(root=str(daemon.root), timeout=20) as client:
            assert {(await client.on(type=CallerReport).call("volume", "where")).host for _ in range(4)} == both
            await client.on(host="node2").cast("volume", "work", seconds=0.01)
            assert await client.fanout("volume", "where") == 2
            async with client.on(type=int).stream("volume", "numbers") as numbers:
                assert await anext(aiter(numbers)) == 0

    asyncio.run(the_same())
    assert daemon.json("call", "volume", "where")["host"] in both
    assert "has accepted work" in daemon.command("cast", "volume", "work", "seconds=0").stdout
    assert "seconds" in daemon.command("call", "volume", "work", "--help").stdout
    assert "until it is cancelled" in daemon.command("describe", "volume").stdout
    rows = [row for row in daemon.json("audit") if row["method"] in ("relay", "relay_stream")]
    assert any('"method":"work"' in row["arguments"] for row in rows)
    assert not any('"method":"where"' in row["arguments"] for row in rows if row["result"] == "done"), (
        "it changes nothing"
    )
    assert "canary" not in str(rows) + daemon.log
    wait_for(lambda: not in_flight(hosts, "node2") + in_flight(hosts, "node3"), "the ends of the streams")


@only_here
def test_a_cut_ends_what_is_relayed_and_a_repeat_goes_on_when_the_host_is_back(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    knows(hosts, "node1", "node2")
    root, volume = str(hosts["node1"].daemon.root), hosts["node2"].daemon
    retry = Retry(attempts=100, max_backoff=0.3, on=(Busy, DaemonNotRunning, Draining, ConnectionLost))
    with Client(root=root, timeout=40) as one, Client(root=root, timeout=40) as other:
        lost = in_background(lambda: refusal(lambda: one.call("volume", "work", seconds=30)))
        again = in_background(lambda: other.on(retry=retry).call("volume", "work", seconds=3))
        wait_for(lambda: volume.call("ostler", "dump")["messages"]["topics"]["volume"]["in_flight"] == 2, "both works")
        volume.running.kill()
        volume.wait_end()
        assert isinstance(lost(), ConnectionLost)
        hosts["node2"].start()
        assert again() == "node2"


def refusal(work: Callable[[], Any]) -> Exception | None:
    """Return what some work raises."""
    try:
        work()
    except OstlerError as error:
        return error
    return None


@only_here
def test_volumes_on_another_host_are_seen_used_and_deleted_where_they_are_asked_for(
    hosts: HostProcesses, tmp_path: Path
) -> None:
    volume = """
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{}"
"""
    hosts.start(node1="talk", node2="talk")
    for name in ("node1", "node2"):
        hosts.configure(name, "talk", more=volume.format(tmp_path / name))
        hosts[name].daemon.stop()
        hosts[name].start()
    knows(hosts, "node1", "node2")
    wait_for(lambda: working(hosts, "volume") == {"node1", "node2"}, "both volume services to be up")
    daemon = hosts["node1"].daemon
    (tmp_path / "image").write_bytes(os.urandom(3_000_000))
    made = daemon.command("volume", "create", "data", "--from", str(tmp_path / "image"), "--host", "node2")
    assert "created volume data (" in made.stdout
    assert "on backend local of node2" in made.stdout
    assert (tmp_path / "node2" / "volumes" / "data").read_bytes()[:3_000_000] == (tmp_path / "image").read_bytes()
    assert daemon.command("volume", "list").stdout.splitlines()[1].split()[0] == "data@node2"
    assert [row["host"] for row in daemon.json("volume", "list")] == ["node2"]
    assert (
        "volume data already exists on node2"
        in daemon.command("volume", "create", "data", "--size", "1MiB", check=None).stderr
    )
    assert "created snapshot data@s on node2" in daemon.command("volume", "snapshot", "create", "data", "s").stdout
    assert "deleted snapshot data@s on node2" in daemon.command("volume", "snapshot", "delete", "data", "s").stdout
    hosts["node2"].daemon.running.kill()
    knows(hosts, "node1", "node2", up=False)
    away = daemon.command("volume", "list")
    assert "cannot query host node2: node2 has been unreachable" in away.stderr
    twin = daemon.json("volume", "create", "data", "--size", "1MiB", "--backend", "local")
    assert "unreachable, and may also have a volume data: node2" in twin["note"]
    hosts["node2"].daemon.wait_end()
    hosts["node2"].start()
    knows(hosts, "node1", "node2")
    wait_for(lambda: working(hosts, "volume") == {"node1", "node2"}, "node2 to be back")
    assert {row["host"] for row in daemon.json("volume", "list")} == {"node1", "node2"}
    assert "deleted volume data on node2" in daemon.command("volume", "delete", "data@node2").stdout
    assert "deleted volume data on node1" in daemon.command("volume", "delete", "data").stdout


@only_here
def test_a_secret_that_is_relayed_is_written_nowhere(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    knows(hosts, "node1", "node2")
    daemon = hosts["node1"].daemon
    for words in (("code=canary-42", "name=desk"), ("code=canary-42",)):
        failed = daemon.command("call", "volume", "unlock", *words, "--host", "node2", check=None)
        assert "canary" not in failed.stderr + failed.stdout
        assert "desk does not open with ***" in failed.stderr or "name" in failed.stderr
    hosts["node2"].daemon.running.kill()
    knows(hosts, "node1", "node2", up=False)
    daemon.command("call", "volume", "unlock", "code=canary-42", "name=desk", "--host", "node2", check=3)
    rows = daemon.json("audit")
    assert "relay" in {row["method"] for row in rows}
    for written in (str(rows), str(daemon.call("ostler", "dump")), daemon.log, hosts["node2"].daemon.log):
        assert "canary" not in written


@only_here
def test_a_call_that_is_tried_again_lasts_over_a_restart_of_the_other_daemon(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    knows(hosts, "node1", "node2")
    before = hosts["node1"].daemon.call_typed(CallerReport, "talk", "patiently", what="volume", at="node2").pid
    hosts["node2"].daemon.running.kill()
    hosts["node2"].daemon.wait_end()
    knows(hosts, "node1", "node2", up=False)
    asking = in_background(
        lambda: hosts["node1"].daemon.call_typed(CallerReport, "talk", "patiently", what="volume", at="node2")
    )
    hosts["node2"].start()
    assert asking().pid != before


@only_here
def test_the_command_reaches_a_daemon_by_address_and_refusals_are_in_its_audit(
    hosts: HostProcesses, tmp_path: Path
) -> None:
    hosts.start(node1="talk")
    host = hosts["node1"]
    mine, other = tmp_path / "my.key", tmp_path / "other.key"
    mine.write_text(hosts.operator.secret)
    other.write_text(hosts.unauthorised_keys.secret)
    words = ("--address", host.address, "--server-key", host.keys.public, "--secret-key")

    def ostler(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([OSTLER, *words], capture_output=True, text=True, timeout=30, check=False)

    assert '"host":"node1"' in ostler(*words, str(mine), "--json", "call", "talk", "where").stdout
    assert f"for other hosts on {host.address}" in ostler(*words, str(mine), "status").stdout
    refused = ostler(*words, str(other), "status")
    assert refused.returncode == 4
    assert "does not know the key" in refused.stderr

    def door() -> list[dict[str, Any]]:
        return [row for row in host.daemon.json("audit") if (row["topic"], row["method"]) == ("ostler", "connect")]

    (row,) = door()
    assert (row["result"], row["refused"], row["key"]) == ("NotPermitted", True, hosts.unauthorised_keys.public)


def test_a_member_that_is_gone_is_passed_over_and_one_by_name_is_refused_at_once(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume", node3="volume")
    knows(hosts, "node1", "node2")
    knows(hosts, "node1", "node3")
    ask, ask_for = hosts["node1"].daemon.call, hosts["node1"].daemon.call_typed
    hosts["node2"].daemon.running.kill()
    knows(hosts, "node1", "node2", up=False)
    assert {ask_for(CallerReport, "talk", "ask", what="volume").host for _ in range(4)} == {"node3"}
    began = time.monotonic()
    with pytest.raises(DaemonNotRunning, match="node2 has been unreachable for"):
        ask("talk", "ask", what="volume", at="node2")
    assert any(line.startswith("node2 has been unreachable") for line in hosts["node1"].daemon.status()["not_well"])
    hosts["node3"].daemon.running.kill()
    knows(hosts, "node1", "node3", up=False)
    with pytest.raises(DaemonNotRunning, match=r"no host can serve volume\.where now: node2 .* and .*node3"):
        ask("talk", "ask", what="volume")
    assert time.monotonic() - began < SOON
    hosts["node2"].daemon.wait_end()
    hosts["node2"].start()
    knows(hosts, "node1", "node2")
    assert ask_for(CallerReport, "talk", "ask", what="volume").host == "node2"


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
def test_a_server_on_another_host_that_dies_is_known_within_seconds(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    knows(hosts, "node1", "node2")
    went = in_background(lambda: hosts["node1"].daemon.call("talk", "went", what="volume", at="node2"))
    at_work(hosts, "node2")
    hosts["node2"].daemon.running.kill()
    name, seconds, text = went()
    assert name == "ConnectionLost"
    assert seconds < SOON
    assert "may or may not have been executed" in text


def test_a_caller_that_takes_it_back_ends_the_work_on_the_other_host(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    knows(hosts, "node1", "node2")
    client = Client(root=str(hosts["node1"].daemon.root), timeout=1.5)
    with client, pytest.raises(Exception, match=r"within 1\.5s"):
        client.call("talk", "ask", what="volume", at="node2", wait=30)
    wait_for(lambda: not in_flight(hosts, "node2"), "the end of the work", more=lambda: hosts["node2"].daemon.log)


def in_flight(hosts: HostProcesses, name: str) -> int:
    rows = hosts[name].daemon.call("ostler", "dump")["messages"]["topics"]
    return int(rows["volume"]["in_flight"])


def at_work(hosts: HostProcesses, name: str) -> None:
    wait_for(lambda: in_flight(hosts, name), f"work on {name}")


# -------------------------------------------------------------------- cables


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
@only_cables
def test_a_cable_that_is_pulled_is_known_within_seconds_and_found_again(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    cables = hosts.network
    assert cables is not None
    knows(hosts, "node1", "node2")
    went = in_background(lambda: hosts["node1"].daemon.call("talk", "went", what="volume", at="node2"))
    at_work(hosts, "node2")
    cables.disconnect("node2")
    name, seconds, text = went()
    assert name == "ConnectionLost", text
    assert seconds < SOON
    knows(hosts, "node1", "node2", up=False)
    began = time.monotonic()
    with pytest.raises(DaemonNotRunning, match="node2 has been unreachable for"):
        hosts["node1"].daemon.call("talk", "ask", what="volume", at="node2")
    assert time.monotonic() - began < 1
    wait_for(lambda: not in_flight(hosts, "node2"), "the work of a caller that has gone to be stopped")
    cables.reconnect("node2")
    knows(hosts, "node1", "node2")
    assert hosts["node1"].daemon.call_typed(CallerReport, "talk", "ask", what="volume", at="node2").host == "node2"


@only_cables
def test_a_cable_that_is_loose_for_a_moment_costs_no_call(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    cables = hosts.network
    assert cables is not None
    knows(hosts, "node1", "node2")
    went = in_background(lambda: hosts["node1"].daemon.call("talk", "went", what="volume", at="node2", wait=2.0))
    at_work(hosts, "node2")
    cables.disconnect("node2")
    time.sleep(0.5)
    cables.reconnect("node2")
    assert went()[::2] == ["", ""]


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
@only_cables
def test_a_connection_that_is_open_on_one_side_only(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    cables = hosts.network
    assert cables is not None
    knows(hosts, "node1", "node2")
    went = in_background(lambda: hosts["node1"].daemon.call("talk", "went", what="volume", at="node2"))
    at_work(hosts, "node2")
    cables.drop_packets("node2", "node1")
    name, seconds, text = went()
    assert name == "ConnectionLost", text
    assert seconds < SOON
    wait_for(lambda: not in_flight(hosts, "node2"), "the work of a caller that cannot be answered to be stopped")


@only_cables
def test_a_line_that_is_slow_and_loses_packets_costs_time_and_nothing_else(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    cables = hosts.network
    assert cables is not None
    knows(hosts, "node1", "node2")
    cables.limit_bandwidth("node2")
    ask = hosts["node1"].daemon.call
    assert ask("talk", "fetch", what="volume", at="node2", count=30, size=5000) == [5000] * 30
    assert cables.lost("node2") > 0
    assert "node2 is unreachable" not in hosts["node1"].daemon.log.partition("connected to node2")[2]


# -------------------------------------------------------------------- keys


@pytest.mark.failure_mode("RPC", "a uid without a role")
@only_here
def test_a_key_that_is_not_known_gets_nothing_and_is_logged_once(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    host = hosts["node1"]
    began = time.monotonic()
    for _ in range(3):
        with host.client(hosts.unauthorised_keys) as client, pytest.raises(NotPermitted, match="does not know the key"):
            client.call("talk", "where")
    with host.client(hosts.unauthorised_keys) as client, pytest.raises(NotPermitted, match="does not know the key"):
        client.events("talk")
    assert time.monotonic() - began < SOON
    assert host.daemon.wait_log("unknown key").count("unknown key") == 1
    wrong = Client(host.address, server_key=generate_keys().public, secret_key=hosts.operator.secret, timeout=5)
    with wrong, pytest.raises(NotPermitted, match="does not have the given server key"):
        wrong.call("talk", "where")
    with host.client(hosts.operator) as client:
        assert client.on(type=CallerReport).call("talk", "where").who == "key:operator"
        with pytest.raises(NotPermitted, match="needs the role admin, key:operator has operator"):
            client.call("ostler", "reload")


@only_here
def test_a_client_over_the_network_connects_anew_after_a_fork(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    with hosts["node1"].client(hosts.operator) as client:
        assert client.on(type=CallerReport).call("talk", "where").who == "key:operator"
        child = os.fork()
        if not child:
            code = 1
            try:
                with client:
                    code = 0 if client.on(type=CallerReport).call("talk", "where").who == "key:operator" else 2
            finally:
                os._exit(code)
        assert client.on(type=CallerReport).call("talk", "where").who == "key:operator"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.on(type=CallerReport).call("talk", "where").who == "key:operator"


@only_here
def test_nobody_there_is_known_at_once(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    host = hosts["node1"]
    host.daemon.stop()
    began = time.monotonic()
    with host.client(hosts.operator) as client, pytest.raises(DaemonNotRunning, match="no answer from tcp://"):
        client.call("talk", "where")
    assert time.monotonic() - began < 2


@only_here
def test_a_key_that_is_taken_away_counts_at_once_on_a_connection_that_stands(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    host, friend = hosts["node1"], generate_keys()
    hosts.configure("node1", "talk", known={"operator": hosts.operator, "friend": friend})
    host.daemon.command("reload")
    with host.client(hosts.operator) as stays, host.client(friend) as goes:
        assert stays.on(type=CallerReport).call("talk", "where").who == "key:operator"
        assert goes.on(type=CallerReport).call("talk", "where").who == "key:friend"
        before = stays.on(type=CallerReport).call("talk", "where").pid
        hears, lost = stays.events("fanout"), goes.events("fanout")
        hosts.configure("node1", "talk")
        host.daemon.command("reload")
        with pytest.raises(ConnectionLost):
            lost.next(5)
        stays.fanout("talk", "where")
        assert hears.next(5).key == "fanout.talk.node1.where"
        with pytest.raises((NotPermitted, ConnectionLost), match=r"has no role|grants it no role|lost"):
            goes.call("talk", "where")
        assert stays.on(type=CallerReport).call("talk", "where").pid == before
    with host.client(friend) as again, pytest.raises(NotPermitted, match="does not know the key"):
        again.call("talk", "where")


RELAYED_READER = """
import os, sys
from ostler import Client, OstlerError

def read(root, most):
    relayed = {"on_host": "node2", "topic": "volume", "method": "orders", "arguments": {}}
    with Client(root=root) as client, client.on(type=int).stream("ostler", "relay_stream", **relayed) as orders:
        for number in orders:
            if number >= most:
                return
            if 10 < most and number < 3:
                print(number, flush=True)

read(sys.argv[1], 3)  # what is imported on the way may lie where other users cannot read
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    read(sys.argv[1], 10**9)
except OstlerError as error:
    print(type(error).__name__, flush=True)
"""


@only_here
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_relayed_stream_ends_on_both_hosts_when_its_caller_becomes_a_viewer(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    knows(hosts, "node1", "node2")
    daemon = hosts["node1"].daemon
    daemon.make_traversable()
    file = daemon.root / "etc" / "ostler.toml"
    text = file.read_text()
    file.write_text(text.replace("operator = [", f"operator = ['{NOBODY}', "))
    daemon.command("reload")
    words = [sys.executable, "-c", RELAYED_READER, str(daemon.root), str(NOBODY)]
    with subprocess.Popen(words, env=daemon.environ, stdout=subprocess.PIPE, text=True) as reading:
        assert reading.stdout is not None
        assert [reading.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
        assert in_flight(hosts, "node2") > 0
        file.write_text(text.replace("operator = [", f"viewer = ['{NOBODY}']\noperator = ["))
        daemon.command("reload")
        said, _ = reading.communicate(timeout=20)
    assert said.splitlines()[-1] == "NotPermitted"
    wait_for(lambda: not in_flight(hosts, "node2"), "the end of the stream on node2")


@only_here
def test_a_new_key_of_the_daemon_needs_a_restart_and_cuts_nobody_before_it(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    host, was = hosts["node1"], hosts["node1"].keys
    with host.client(hosts.operator) as old:
        assert old.on(type=CallerReport).call("talk", "where").host == "node1"
        host.keys = generate_keys()
        hosts.configure("node1", "talk")
        assert "needs a restart for network.secret_key" in host.daemon.command("reload").stdout
        assert old.on(type=CallerReport).call("talk", "where").host == "node1"
    with Client(host.address, server_key=was.public, secret_key=hosts.operator.secret, timeout=20) as still:
        assert still.on(type=CallerReport).call("talk", "where").host == "node1"
    assert was.secret not in host.daemon.log
    host.daemon.stop()
    host.start()
    with host.client(hosts.operator) as fresh:
        assert fresh.on(type=CallerReport).call("talk", "where").host == "node1"
    gone = Client(host.address, server_key=was.public, secret_key=hosts.operator.secret, timeout=5)
    with gone, pytest.raises(NotPermitted, match="does not have the given server key"):
        gone.call("talk", "where")


@only_here
def test_garbage_on_a_port_disturbs_nobody(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    host = hosts["node1"]
    port = int(host.address.rpartition(":")[2])
    with host.client(hosts.operator) as client:
        assert client.on(type=CallerReport).call("talk", "where").host == "node1"
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f\x03", bytes(100_000), b"\x16\x03\x01"):
            for target in (port, port + 1):
                with socket.create_connection(("127.0.0.1", target)) as stranger:
                    stranger.sendall(data)
        assert client.on(type=CallerReport).call("talk", "where").host == "node1"
    assert "Traceback" not in host.daemon.log


@only_here
def test_more_connections_than_are_allowed_are_refused_and_those_that_stand_go_on(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    host = hosts["node1"]
    host.daemon.configure("[messaging]\nmax_connections = 10\n", "conf.d/few.toml")
    host.daemon.stop()
    host.start()
    standing = [host.client(hosts.operator) for _ in range(5)]
    try:
        for client in standing:
            assert client.on(type=CallerReport).call("talk", "where").host == "node1"
        for _ in range(3):
            with (
                host.client(hosts.operator) as client,
                pytest.raises(Busy, match="has reached its limit of connections"),
            ):
                client.call("talk", "where")
        assert [client.on(type=CallerReport).call("talk", "where").host for client in standing] == ["node1"] * 5
        standing.pop().close()
        wait_for(lambda: answers(hosts), "room for one more")
        assert host.daemon.wait_log("already has 5").count("already has 5, and 5 are free") == 1
    finally:
        for client in standing:
            client.close()


def answers(hosts: HostProcesses) -> bool:
    with hosts["node1"].client(hosts.operator) as client:
        try:
            return bool(client.call("talk", "where"))
        except Busy:
            return False


@only_here
def test_an_operators_command_for_another_host_is_done_there_or_refused_by_name(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="talk")
    knows(hosts, "node1", "node2")
    one, two = hosts["node1"].daemon, hosts["node2"].daemon
    one.command("service", "disable", "talk", "--host", "node2", "--reason", "disk swap")
    there = two.json("service", "show", "talk")
    assert (there["enabled"], there["disabled_reason"]) == (False, "disk swap")
    assert re.fullmatch(r"uid \d+ on node1, by key:node1", there["disabled_by"])
    assert one.json("service", "show", "talk", "--host", "node2")["enabled"] is False, "known here at once"
    refused = one.command("service", "drain", "talk", "--host", "node2", check=4).stderr
    assert "key:node1 has operator" in refused
    two.configure((two.root / "etc/ostler.toml").read_text().replace("[access]", "[access]\nadmin = ['key:node1']"))
    two.command("reload")
    one.command("service", "drain", "talk", "--host", "node2")
    assert one.json("service", "show", "talk", "--host", "node2")["state"] == "draining"
    assert "accepts no new work" in two.command("call", "talk", "where", check=1).stderr
    one.command("service", "resume", "talk", "--host", "node2")
    two.command("call", "talk", "where")
    one.command("service", "enable", "talk", "--host", "node2")
    assert two.json("service", "show", "talk")["enabled"] is True
    one.command("service", "restart", "talk", "--host", "node2")
    assert one.json("service", "show", "talk", "--host", "node2")["state"] == "up"
    unknown = one.command("service", "disable", "talk", "--host", "node9", "--reason", "x", check=1).stderr
    assert "host 'node9' not found" in unknown
    two.running.kill()
    knows(hosts, "node1", "node2", up=False)
    away = one.command("service", "disable", "talk", "--host", "node2", "--reason", "x", check=3).stderr
    assert "disable of talk on node2 failed: node2 has been unreachable for" in away
    assert one.json("service", "show", "talk", "--host", "node2")["enabled"] is True, "nothing is written here alone"


@only_here
def test_a_service_forced_down_or_frozen_on_another_host_gets_no_work_meanwhile(
    hosts: HostProcesses,
) -> None:
    hosts.start(node1="talk", node2="talk volume", node3="volume")
    for other in ("node2", "node3"):
        knows(hosts, "node1", other)
    knows(hosts, "node2", "node3")
    one, two = hosts["node1"].daemon, hosts["node2"].daemon
    wait_for(lambda: working(hosts, "volume") == {"node2", "node3"}, "both members to be up")
    wait_for(lambda: two.json("service", "show", "volume", "--host", "node3")["up"], "node2 to know of node3")
    said = one.command("service", "force-down", "volume", "--host", "node3", "--reason", "its power is cut").stdout
    assert said.endswith("also told: node2\n")
    for daemon in (one, two):
        row = daemon.json("service", "show", "volume", "--host", "node3")
        assert (row["up"], row["state"], row["forced_down"]["reason"]) == (False, "up", "its power is cut")
        assert row["causes"][0]["kind"] == "forced down"
    assert "on node1" in two.json("service", "show", "volume", "--host", "node3")["forced_down"]["by"]
    assert {one.json("call", "volume", "work", "seconds=0") for _ in range(4)} == {"node2"}
    assert one.json("call", "volume", "work", "seconds=0", "--host", "node3") == "node3", "who names it knows why"
    two.command("service", "freeze", "volume", "--reason", "new disks")
    wait_for(lambda: one.json("service", "show", "volume", "--host", "node2")["frozen"], "node1 to know of it")
    none = one.command("call", "volume", "work", "seconds=0", check=None).stderr
    assert "volume on node2 is frozen by" in none
    assert "volume on node3 was forced down by" in none
    named = one.command("call", "volume", "work", "seconds=0", "--host", "node2", check=1).stderr
    assert "it accepts no new work" in named
    two.command("service", "thaw", "volume")
    wait_for(lambda: not one.json("service", "show", "volume", "--host", "node2")["frozen"], "node1 to know of it")
    assert one.json("call", "volume", "work", "seconds=0") == "node2"
    two.stop()
    knows(hosts, "node1", "node2", up=False)
    missed = one.command("service", "force-down", "volume", "--host", "node3", "--undo", check=1).stdout
    assert "not told: node2: node2 has been unreachable" in missed
    assert one.json("call", "volume", "work", "seconds=0") == "node3"


@only_here
def test_a_peer_that_is_taken_out_is_gone_is_no_trouble_and_can_be_forgotten(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="talk")
    knows(hosts, "node1", "node2")
    one = hosts["node1"].daemon
    wait_for(lambda: working(hosts, "talk") == {"node1", "node2"}, "both to be up")
    assert (
        "host node2 is up and has a service talk"
        in one.command("service", "delete", "talk", "--host", "node2", check=1).stderr
    )
    config = (one.root / "etc/ostler.toml").read_text()
    one.configure(config[: config.index("[network.peers.node2]")] + config[config.index("[services.talk]") :])
    one.command("reload")
    gone = one.json("service", "show", "talk", "--host", "node2")
    assert (gone["state"], gone["up"]) == ("gone", False)
    assert "No problems." in one.command("status").stdout
    one.command("service", "delete", "talk", "--host", "node2")
    assert [row["host"] for row in one.json("service", "list")] == ["node1"]


@only_here
def test_a_copy_of_a_host_is_refused_by_name_and_both_say_so(
    hosts: HostProcesses, make_daemon: Callable[..., DaemonProcess]
) -> None:
    hosts.start(node1="talk", node2="talk")
    knows(hosts, "node2", "node1")
    one, two = hosts["node1"], hosts["node2"].daemon
    copy = make_daemon()
    text = (one.daemon.root / "etc/ostler.toml").read_text()
    copy.configure(text.replace(f'rpc = "{one.address}"', f'rpc = "tcp://127.0.0.1:{free_ports()}"'))
    copy.start()
    said = wait_for(
        lambda: [line for line in copy.status()["not_well"] if "two hosts are named node1" in line],
        "the copy to be told",
    )
    assert "node2 refuses this host: two hosts are named node1" in said[0]
    (here,) = [line for line in two.status()["not_well"] if "node1" in line]
    assert here.startswith("refused a daemon that calls as node1: two hosts are named node1")
    for daemon in (copy, two):
        daemon.command("status", "--check", check=1)
        daemon.wait_log("two hosts are named node1")
    assert two.call("ostler", "dump")["messages"]["peers"]["node1"]["up"] is True
    assert one.daemon.status()["not_well"] == []
    copy.running.kill()


@only_here
def test_a_host_that_is_started_anew_is_no_copy_of_itself(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="talk")
    knows(hosts, "node2", "node1")
    for _ in range(2):
        hosts["node1"].daemon.running.kill()
        hosts["node1"].daemon.running.wait(10)
        hosts["node1"].start()
        knows(hosts, "node2", "node1")
        knows(hosts, "node1", "node2")
    assert "two hosts" not in hosts["node2"].daemon.log + hosts["node1"].daemon.log


@only_here
def test_another_key_under_the_name_of_this_host_speaks_for_no_host_and_is_said(hosts: HostProcesses) -> None:
    hosts.start(node1="talk")
    daemon = hosts["node1"].daemon
    text = (daemon.root / "etc/ostler.toml").read_text()
    daemon.configure(text.replace(hosts["node1"].keys.public, generate_keys().public))
    daemon.command("reload")
    assert "[network.keys] has the key of another host under node1" in "".join(daemon.status()["not_well"])


@only_here
def test_whoever_listens_is_told_when_a_peer_is_lost_and_back(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="talk")
    knows(hosts, "node1", "node2")
    two = hosts["node2"]
    told: dict[str, Any] = {}
    root = str(hosts["node1"].daemon.root)
    with Client(root=root, timeout=20) as client, client.events("ostler") as events:
        client.call("ostler", "service_disable", topic="talk", reason="painting")
        two.daemon.running.kill()
        two.daemon.running.wait(10)
        two.start()
        for event in events:
            if isinstance(event, Event):
                told[event.name] = event.payload
            if "peer.back" in told:
                break
    assert told["service.disabled"]["why"] == "painting"
    assert told["peer.lost"]["peer"] == told["peer.back"]["peer"] == "node2"
    assert told["peer.lost"]["why"]
    assert told["peer.back"]["was"] == "lost"


def test_an_operation_on_another_host_is_submitted_watched_and_outlives_that_host(hosts: HostProcesses) -> None:
    hosts.start(node1="talk", node2="volume")
    knows(hosts, "node1", "node2")
    daemon, other = hosts["node1"].daemon, hosts["node2"].daemon
    with Client(root=str(daemon.root)) as client:
        operation = client.on(host="node2", request_id="far").submit("volume", "work", seconds=0.3)
        assert (operation.host, operation.status.topic) == ("node2", "volume")
        assert operation.result(timeout=30) == "node2"
        again = client.on(host="node2", request_id="far").submit("volume", "work", seconds=0.3)
        assert (again.id, again.result(timeout=30)) == (operation.id, "node2")
        cut_off = client.on(host="node2").submit("volume", "work", seconds=60)
        wait_for(lambda: other.json("operation", "list")[-1]["state"] == "running", "it to run")
        other.signal(signal.SIGKILL)
        other.wait_end()
        hosts["node2"].start()
        with pytest.raises(OperationInterrupted, match="the daemon ended while operation"):
            cut_off.result(timeout=40)
        stopped = client.on(host="node2").submit("volume", "work", seconds=60)
        stopped.cancel()
        with pytest.raises(Cancelled):
            stopped.result(timeout=30)
    rows = daemon.json("operation", "list", "--host", "node2")
    assert [(row["host"], row["state"]) for row in rows] == [
        ("node2", "succeeded"), ("node2", "failed"), ("node2", "cancelled"),
    ]  # fmt: skip
    assert daemon.json("operation", "list") == []
    shown = daemon.json("operation", "show", rows[0]["id"], "--host", "node2")
    assert (shown["result"], shown["is_hidden"]) == ("node2", False)
