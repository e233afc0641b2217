"""Arguments that are called as the options of a call are, through a daemon and its command."""

from __future__ import annotations

from typing import Any

import pytest
from daemon_process import DaemonProcess

from ostler import AsyncClient, Client, InvalidArguments, RpcApi, remote

CONFIG = """
[services.planner]
manager = "option_subjects:Planner"
"""
GIVEN: dict[str, Any] = {
    "host": "a", "timeout": 2.5, "retry": True, "type": "x", "topic": "t", "method": "m"
}  # fmt: skip
WORDS = ["host=a", "timeout=2.5", "retry=true", "type=x", "topic=t", "method=m"]


class PlannerApi(RpcApi):
    topic = "planner"

    @remote()
    def plan(
        self, host: str, timeout: float, retry: bool, type: str, topic: str, method: str  # noqa: A002
    ) -> dict[str, Any]: ...  # fmt: skip


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    made: DaemonProcess = make_daemon(CONFIG).start()
    return made


def test_the_command_tells_options_from_arguments(daemon) -> None:
    assert daemon.json("call", "planner", "plan", *WORDS) == GIVEN
    assert daemon.json("call", "planner", "plan", *WORDS, "--timeout", "20", "--host", daemon.status()["host"]) == GIVEN
    assert daemon.command("call", "planner", "each", "host=a", "timeout=1").stdout == '["a",1.0]\n'
    daemon.command("cast", "planner", "plan", *WORDS)
    shown = daemon.command("call", "planner", "plan", "--help").stdout
    assert "usage: ostler call planner plan host=… timeout=… retry=… type=… topic=… method=…" in shown
    refused = daemon.command("call", "planner", "each", "host=a", "timeout=1", "credit=5", "retry=no", check=2).stderr
    assert "planner.each takes no argument 'credit' and 'retry'" in refused
    assert "call options are set with client.on(credit=…, retry=…)" in refused
    assert "on a command line with --timeout" in daemon.command("call", "ostler", "status", "timeout=1", check=2).stderr


def test_clients_of_every_kind_tell_options_from_arguments(daemon) -> None:
    with Client(root=str(daemon.root)) as client:
        assert client.on(timeout=20, host=daemon.status()["host"]).call("planner", "plan", **GIVEN) == GIVEN
        assert list(client.on(credit=1).stream("planner", "each", host="a", timeout=1)) == [["a", 1.0]]
        assert PlannerApi(client).on(timeout=20).plan(**GIVEN) == GIVEN
        with pytest.raises(InvalidArguments, match=r"client\.on\(timeout=…\)"):
            client.call("ostler", "status", timeout=5)


async def test_clients_on_a_loop_tell_options_from_arguments(daemon) -> None:
    async with AsyncClient(root=str(daemon.root)) as client:
        assert await client.on(timeout=20).call("planner", "plan", **GIVEN) == GIVEN
        assert await PlannerApi(client).on(timeout=20).plan.acall(**GIVEN) == GIVEN
