"""Each verb against a daemon that is a script of answers: what it asks, what it shows, how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from ostler.cli.commands.config import difference_rows
from ostler.cli.commands.handler import format_state as format_handler_state
from ostler.cli.commands.periodic import format_state
from ostler.cli.fast_status import override_text
from ostler.cli.results import OptionDifference
from ostler.config.core_sections import LogSection
from ostler.errors import ConfigurationError, DaemonNotRunning, NotPermitted, Problem, ServiceNotFound, WrongCallKind
from ostler.manager_types import EventHandlerStatus, FollowedRecord, FollowedRecords, LockStatus, LogLevel
from ostler.messaging.events import Event, Gap
from ostler.reload_types import OptionChange, ReloadPlan, ReloadResult, ReloadStep
from ostler.store import VacuumResult
from ostler.types import (
    ArgumentDescription,
    CallerIdentity,
    DriverState,
    DriverStatus,
    ForcedDownResult,
    MemberVersion,
    MethodDescription,
    OperatorOverride,
    OptionValue,
    PeriodicHistory,
    PeriodicRunStatus,
    PeriodicStatus,
    PluginState,
    PluginStatus,
    Role,
    ServiceState,
    ServiceStatus,
    Upgrade,
)

NOW = 1_800_000_000.0

CREATE = MethodDescription(
    topic="volume", method="create", role=Role.OPERATOR, version="1.1", changes=True, result="Volume",
    doc="Create a volume.\n\nIt is sparse.\n\nArgs:\n    name: Its name.", topic_version="1.3", secret=["size"],
    arguments=[
        ArgumentDescription(name="name", type="str", required=True, doc="Its name."),
        ArgumentDescription(name="size", type="int", required=False, default="1"),
    ],
)  # fmt: skip
VOLUME = ServiceStatus(
    topic="volume", host="node1", manager="volume", state=ServiceState.UP, since=NOW - 60, up=True, last_report=NOW,
    drivers=[DriverStatus(name="a", driver="file", state=DriverState.STUCK, why="copy", since=NOW - 5)],
)  # fmt: skip


@pytest.fixture
def answer(client: Any) -> Any:
    def add(method: str, value: Any, topic: str = "ostler") -> None:
        client.answers[topic, method] = value

    return add


# ---------------------------------------------------------------- reload


def test_reload_shows_the_verdict(ostler: Any, client: Any, answer: Any) -> None:
    change = OptionChange(path="log.level", old="info", new="debug", needs="live")
    waiting = OptionChange(path="daemon.host", old="one", new="two", needs="daemon")
    verdict = ReloadResult(ok=True, at=NOW, summary="applied one change", changes=[change], needs_restart=[waiting])
    answer("reload", verdict)
    assert ostler("reload") == (
        0,
        (
            "applied one change\n\nOPTION     OLD   NEW    NEEDS\nlog.level  info  debug  live\n\n"
            "These changes take effect after a restart (`systemctl restart ostler`):\n"
            '  daemon.host: "one" -> "two"\n'
        ),
        "",
    )
    assert client.opened == [(None, 900.0)]
    assert json.loads(ostler("reload", "--json").out)["needs_restart"][0]["new"] == "two"


def test_a_reload_that_was_undone_names_its_steps(ostler: Any, answer: Any) -> None:
    steps = [
        ReloadStep(action="add driver", subject="volume/second", options=["x"], outcome="failed", why="no disk"),
        ReloadStep(action="restart service", subject="echo", options=["y"], outcome="not begun"),
        ReloadStep(action="apply options", subject="other", outcome="undone"),
    ]
    answer("reload", ReloadResult(ok=False, at=NOW, summary="failed: no disk", steps=steps, problems=["no disk"]))
    assert ostler("reload") == (
        1,
        (
            "failed: no disk\n  add driver volume/second: failed\n  restart service echo: not begun\n"
            "`ostler reload --keep-failed` applies it nevertheless, and tries failed drivers again.\n"
        ),
        "",
    )


def test_the_plan_shows_changes_and_steps(ostler: Any, client: Any, answer: Any) -> None:
    change = OptionChange(path="services.door.workers", old=8, new=3, needs="service")
    step = ReloadStep(action="restart service", subject="gate", why="it needs door")
    answer("reload_plan", ReloadPlan(changes=[change], steps=[step]))
    shown = ostler("reload", "--plan").out
    assert "services.door.workers" in shown
    assert "  1. restart service gate (it needs door)\n" in shown
    answer("reload_plan", ReloadPlan())
    assert ostler("reload", "--plan").out == "Nothing has changed.\n"


STUCK = DriverStatus(name="second", driver="file", state=DriverState.STUCK, why="create did not return", errors=3)


def test_drivers_are_listed_and_shown_with_their_errors(ostler: Any, answer: Any) -> None:
    volume = ServiceStatus(topic="volume", host="node1", manager="volume", state=ServiceState.UP, drivers=[STUCK])
    answer("service_list", [volume])
    assert "volume/second  node1  file  stuck" in ostler("driver", "list").out
    assert "second" not in ostler("driver", "list", "other").out
    assert "create did not return" in ostler("driver", "show", "volume/second").out
    assert "available: volume/second" in ostler("driver", "show", "volume/third").err
    assert "write SERVICE/NAME" in ostler("driver", "show", "volume").err


def test_a_driver_that_was_abandoned_and_fails_again_ends_with_1(ostler: Any, answer: Any) -> None:
    answer("driver.abandon", STUCK)
    assert ostler("driver", "abandon", "volume/second") == (
        1, "driver volume/second is stuck: create did not return\n", "",
    )  # fmt: skip


def test_a_refused_reload_says_every_problem_and_ends_with_78(ostler: Any, answer: Any) -> None:
    problems = [Problem("", "a.toml:1:1: x"), Problem("", "b.toml:2:2: y")]
    answer("reload", ConfigurationError(problems, hint="nothing was changed"))
    assert ostler("reload") == (
        78,
        "",
        "  a.toml:1:1: x\n  b.toml:2:2: y\nostler: 2 problems in the configuration\nhint: nothing was changed\n",
    )


def test_a_reload_that_a_service_could_not_follow_ends_with_1(ostler: Any, answer: Any) -> None:
    answer(
        "reload", ReloadResult(ok=False, at=NOW, summary="applied, with one failure", problems=["volume: reset failed"])
    )
    assert ostler("reload") == (1, "applied, with one failure\n", "volume: reset failed\n")


def test_a_reload_says_which_drivers_take_their_options_later(ostler: Any, answer: Any) -> None:
    line = "driver a of volume applies new options as soon as no call is in progress: clone (for 12s)"
    answer("reload", ReloadResult(ok=True, at=NOW, summary="reloaded", pending=[line]))
    assert ostler("reload") == (0, f"reloaded\n  {line}\n", "")


# ---------------------------------------------------------------- service


def test_services_are_listed(ostler: Any, answer: Any) -> None:
    answer("service_list", [VOLUME])
    assert ostler("service", "list").out == (
        "TOPIC   HOST   STATE  SEEN  ENABLED  FOR   IN FLIGHT  WHY\n"
        "volume  node1  up     up    enabled  1min          0  -\n"
    )  # fmt: skip


def test_a_service_is_shown_with_its_drivers(ostler: Any, client: Any, answer: Any) -> None:
    answer("service_show", VOLUME)
    out = ostler("service", "show", "volume").out
    assert "last report  2027-01-15 08:00:00\n" in out
    assert "a     file    stuck  5s   -          0       0         0  copy\n" in out
    assert "available    yes\n" in out
    assert client.calls == [("ostler", "service_show", {"topic": "volume"})]
    assert json.loads(ostler("service", "show", "volume", "--json").out)["topic"] == "volume"


def test_a_service_that_is_not_to_be_chosen_is_shown_with_why(ostler: Any, answer: Any) -> None:
    answer(
        "service_show", ServiceStatus(topic="volume", host="node2", link="node2 has been unreachable for 7s: no cable")
    )
    out = ostler("service", "show", "volume", "--host", "node2").out
    assert "available    no: node2 has been unreachable for 7s: no cable\n" in out


def test_a_service_whose_host_cannot_be_reached_says_so_in_the_list(ostler: Any, answer: Any) -> None:
    answer("service_list", [replace(VOLUME, up=False, link="node2 cannot be reached")])
    assert ostler("service", "list").out.splitlines()[1].endswith("node2 cannot be reached")


def test_a_service_is_disabled_with_a_reason_and_enabled_again(ostler: Any, client: Any, answer: Any) -> None:
    off = ServiceStatus(topic="volume", host="node1", enabled=False, disabled_reason="new disks", disabled_by="uid 0")
    answer("service_disable", off)
    answer("service_enable", VOLUME)
    assert ostler("service", "disable", "volume", "--reason", "new disks").out == (
        "volume on node1 is disabled by uid 0: new disks\n"
    )
    assert ostler("service", "enable", "volume").out == "volume on node1 is enabled\n"
    assert ostler("service", "disable", "volume").code == 2
    assert client.calls[0] == ("ostler", "service_disable", {"topic": "volume", "reason": "new disks"})


def test_a_service_is_frozen_and_thawed(ostler: Any, client: Any, answer: Any) -> None:
    frozen = replace(VOLUME, frozen=OperatorOverride(by="uid 0", reason="new disks", since=1.0))
    answer("service_freeze", frozen)
    answer("service_thaw", VOLUME)
    said = "volume on node1 is up, and frozen by uid 0: new disks\n"
    assert ostler("service", "freeze", "volume", "--reason", "new disks").out == said
    assert ostler("service", "thaw", "volume", "--host", "node2").out == "volume on node1 is up\n"
    assert ostler("service", "freeze", "volume").code == 2
    assert client.calls == [
        ("ostler", "service_freeze", {"topic": "volume", "reason": "new disks"}),
        ("ostler", "service_thaw", {"topic": "volume", "on_host": "node2"}),
    ]
    both = replace(frozen, enabled=False, disabled_by="uid 7", forced_down=OperatorOverride(by="uid 8"))
    answer("service_list", [both])
    text = ostler("--json", "service", "list").out
    assert [json.loads(text)[0][name]["by"] for name in ("frozen", "forced_down")] == ["uid 0", "uid 8"]
    assert override_text(both) == "forced down by uid 8; frozen by uid 0: new disks; disabled by uid 7"


def test_a_service_of_a_dead_host_is_forced_down(ostler: Any, client: Any, answer: Any) -> None:
    answer("service_force_down", ForcedDownResult(service=VOLUME, told=["node3"]))
    asked = ("service", "force-down", "volume", "--host", "node1")
    found = ostler(*asked, "--reason", "its power is cut")
    assert (found.code, found.out) == (
        0,
        "volume on node1 is taken as down until `ostler service force-down --undo`; also told: node3\n",
    )
    answer("service_force_down", ForcedDownResult(service=VOLUME, missed=["node4: no cable"]))
    found = ostler(*asked, "--undo")
    assert (found.code, found.out) == (
        1, "volume on node1 counts by its own reports again\n  not told: node4: no cable\n",
    )  # fmt: skip
    assert [call[2] for call in client.calls] == [
        {"topic": "volume", "reason": "its power is cut", "on_host": "node1"},
        {"topic": "volume", "undo": True, "on_host": "node1"},
    ]
    assert ostler(*asked).code == 2


def test_a_record_is_forgotten(ostler: Any, client: Any, answer: Any) -> None:
    answer("service_delete", None)
    assert ostler("service", "delete", "volume", "--host", "old").out == "the record of volume on old was removed\n"
    assert client.calls == [("ostler", "service_delete", {"topic": "volume", "on_host": "old"})]


def test_all_records_that_are_gone_are_forgotten_at_once(ostler: Any, client: Any, answer: Any) -> None:
    rows = [
        ServiceStatus(topic="volume", host="old", state=ServiceState.GONE),
        ServiceStatus(topic="lamp", host="node1", state=ServiceState.GONE),
        ServiceStatus(topic="volume", host="node1", state=ServiceState.UP),
    ]
    answer("service_list", rows)
    answer("service_delete", None)
    removed = ["the record of volume on old was removed", "the record of lamp on node1 was removed"]
    assert ostler("service", "delete", "--gone").out.splitlines() == removed
    assert ostler("service", "delete", "--gone", "--host", "old").out.splitlines() == removed[:1]
    assert ostler("service", "delete", "--gone", "--host", "node9").out == "No services are gone.\n"
    assert [call[2] for call in client.calls if call[1] == "service_delete"] == [
        {"topic": "volume", "on_host": "old"},
        {"topic": "lamp", "on_host": "node1"},
        {"topic": "volume", "on_host": "old"},
    ]
    code, _, err = ostler("service", "delete")
    assert (code, "no service given" in err) == (2, True)


@pytest.mark.parametrize(
    ("verb", "method", "more"),
    [("resume", "service_resume", {}), ("start", "service_start", {}), ("restart", "service_restart", {"wait": 5.0})],
)
def test_a_service_is_brought_back_on_its_host(
    ostler: Any, client: Any, answer: Any, verb: str, method: str, more: dict[str, float]
) -> None:
    answer(method, ServiceStatus(topic="volume", host="node2", state=ServiceState.UP))
    options = [word for name, value in more.items() for word in (f"--{name}", str(value))]
    assert ostler("service", verb, "volume", "--host", "node2", *options).out == "volume on node2 is up\n"
    assert client.calls == [("ostler", method, {"topic": "volume", "on_host": "node2", **more})]


def test_a_stop_says_what_has_not_come_back(ostler: Any, answer: Any) -> None:
    answer("service_stop", [])
    assert ostler("service", "stop", "volume").out == "volume is stopped, and nothing is left running.\n"
    answer("service_stop", ["volume.create on volume-1 for 30s"])
    code, out, _ = ostler("service", "stop", "volume")
    assert (code, out) == (1, "volume is stopped; still running:\n  volume.create on volume-1 for 30s\n")


def test_enable_says_when_a_service_takes_no_calls_all_the_same(ostler: Any, answer: Any) -> None:
    answer("service_enable", ServiceStatus(topic="volume", host="node1", state=ServiceState.DRAINING))
    assert ostler("service", "enable", "volume").out == (
        "volume on node1 is enabled\n  it refuses calls because it is draining: `ostler service resume volume`\n"
    )


def test_a_drain_says_what_is_left_and_fails_then(ostler: Any, client: Any, answer: Any) -> None:
    answer("service_drain", [])
    assert ostler("service", "drain", "volume") == (
        0,
        "volume refuses new work, and nothing is in flight.\n",
        "",
    )
    answer("service_drain", ["volume.create for 30s"])
    code, out, _ = ostler("service", "drain", "volume")
    assert (code, out) == (1, "volume refuses new work; still in flight:\n  volume.create for 30s\n")
    code, out, _ = ostler("service", "drain", "volume", "--json")
    assert (code, json.loads(out)["still_running"]) == (1, ["volume.create for 30s"])
    assert client.opened[-1] == (None, 600.0)
    ostler("service", "drain", "volume", "--wait", "5")
    assert client.calls[-1][2] == {"topic": "volume", "wait": 5.0}
    assert client.opened[-1] == (None, 65.0)


def test_a_service_of_another_host_is_named_to_this_daemon(ostler: Any, client: Any, answer: Any) -> None:
    answer("service_show", VOLUME)
    ostler("service", "show", "volume", "--host", "node2")
    assert client.calls[-1][2] == {"topic": "volume", "on_host": "node2"}


# ---------------------------------------------------------------- plugin


def test_plugins_are_listed_with_their_state_and_why(ostler: Any, answer: Any) -> None:
    answer(
        "plugin_list",
        [
            PluginStatus(name="a", state=PluginState.LOADED, version="1.0", distribution="ostler-a",
                         hooks=["ostler_managers", "ostler_drivers"], seconds=0.0123, required=True),
            PluginStatus(name="b", state=PluginState.FAILED, why="no module c"),
        ],
    )  # fmt: skip
    assert ostler("plugin", "list").out == (
        "PLUGIN  STATE   VERSION  FROM      REQUIRED  LOADED IN  HOOKS              WHY\n"
        "a       loaded  1.0      ostler-a  yes            12ms  managers, drivers  -\n"
        "b       failed  -        -         no                -  -                  no module c\n"
    )


# ---------------------------------------------------------------- call, cast, describe


def test_a_call_passes_arguments_and_shows_the_result(ostler: Any, client: Any, answer: Any) -> None:
    answer("list", [{"name": "a", "size": 1}, {"name": "b", "size": 2}], topic="volume")
    code, out, err = ostler("call", "volume", "list", "owner=x", "--host", "node2", "--timeout", "5min")
    assert (code, out, err) == (0, "NAME  SIZE\na     1\nb     2\n", "")
    assert client.calls == [("volume", "list", {"owner": "x"})]
    options = client.views[-1]
    assert options.pop("on_progress") is not None
    assert options == {"host": "node2"}
    assert client.opened == [(None, 300.0)]


def test_call_prints_what_a_method_yields_line_by_line(ostler, client):
    client.answers["volume", "watch"] = WrongCallKind("volume.watch yields", streams=True)
    asked = []

    def stream(topic, method, **arguments):
        asked.append((topic, method, arguments))
        yield from ("a\nb", {"name": "a", "size": 5}, 7, None)

    client.stream = stream
    assert ostler("call", "volume", "watch", "owner=x", "--timeout", "5") == (
        0, 'a\\nb\n{"name":"a","size":5}\n7\n-\n', ""
    )  # fmt: skip
    assert asked == [("volume", "watch", {"owner": "x"})]
    assert client.views[-1] == {"timeout": 5.0, "host": None}
    assert client.opened == [(None, 5.0)]
    assert ostler("--json", "call", "volume", "watch").out == '"a\\nb"\n{"name":"a","size":5}\n7\nnull\n'


def elsewhere(topic, method, /, **arguments):
    raise ServiceNotFound("this daemon is node1", here="node1")


def test_what_is_on_another_host_goes_by_way_of_the_daemon_here(ostler, client, monkeypatch):
    relayed = {"on_host": "node2", "topic": "volume", "method": "watch", "arguments": {"owner": "x"}}
    client.answers["volume", "watch"] = ServiceNotFound("this daemon is node1", here="node1")
    client.answers["ostler", "relay"] = WrongCallKind("volume.watch yields", streams=True)
    asked = []

    def stream(topic, method, /, **arguments):
        asked.append((topic, method, arguments))
        if topic == "volume":
            elsewhere(topic, method)
        yield 1

    client.stream = stream
    assert ostler("call", "volume", "watch", "owner=x", "--host", "node2").out == "1\n"
    assert asked[1] == ("ostler", "relay_stream", relayed)
    monkeypatch.setattr(client, "cast", elsewhere)
    client.answers["ostler", "relay"] = None
    assert ostler("cast", "volume", "watch", "owner=x", "--host", "node2").code == 0
    assert client.calls[-1] == ("ostler", "relay", {"cast": True, **relayed})
    assert "this daemon is node1" in ostler("cast", "volume", "watch", "--host", "node1").err


def test_call_of_what_is_asked_for_wrongly_otherwise_is_an_error(ostler, client):
    client.answers["volume", "list"] = WrongCallKind("volume.list does not yield", streams=False)
    assert ostler("call", "volume", "list").code == 2


def test_what_was_typed_is_for_the_service_to_convert(ostler: Any, client: Any, answer: Any) -> None:
    answer("create", None, topic="volume")
    words = ["name=10", "size=10", "on=true", 'tags=["x"]', 'text="a b"', "none=null", "options={}"]
    assert ostler("call", "volume", "create", *words).code == 0
    assert client.lenient
    assert client.calls[-1][2] == {
        "name": "10", "size": "10", "on": "true", "tags": ["x"], "text": "a b", "none": "null", "options": {},
    }  # fmt: skip
    answer("describe", [CREATE])
    ostler("describe", "volume")
    assert not client.lenient


@pytest.mark.parametrize("word", ["nonsense", "=a", "a b=c"])
def test_words_that_cannot_be_arguments_are_refused(ostler: Any, client: Any, word: str) -> None:
    assert ostler("call", "volume", "create", word).code == 2
    assert client.calls == []


def test_arguments_may_have_the_names_of_options(ostler: Any, client: Any, answer: Any) -> None:
    answer("plan", None, topic="volume")
    words = ["host=a", "timeout=3", "retry=no", "type=x", "topic=t", "method=m"]
    assert ostler("call", "volume", "plan", *words, "--host", "node2", "--timeout", "5").code == 0
    named = {"host": "a", "timeout": "3", "retry": "no", "type": "x", "topic": "t", "method": "m"}
    assert client.calls[-1] == ("volume", "plan", named)
    assert (client.views[-1]["host"], client.opened[-1]) == ("node2", (None, 5.0))
    assert ostler("cast", "volume", "plan", *words).code == 0
    assert client.casts == [("volume", "plan", named)]


def test_the_help_of_a_method_is_the_daemons_description(ostler: Any, answer: Any) -> None:
    answer("describe", [CREATE])
    assert ostler("call", "volume", "create", "--help") == (
        0,
        (
            "volume.create(name: str, size: int = 1) -> Volume\n"
            "  role operator; since version 1.1 (volume is 1.3)\n  Create a volume.\n\n  It is sparse.\n\n"
            "ARGUMENT  TYPE  DEFAULT   DESCRIPTION\n"
            "name      str   required  Its name.\n"
            "size      int   1         secret, never shown\n\n"
            "  usage: ostler call volume create name=… [size=…]\n"
        ),
        "",
    )
    assert "Usage: ostler call" in ostler("call", "--help").out
    code, _, err = ostler("call", "volume", "craete", "--help")
    assert (code, err) == (1, "ostler: method volume.craete not found\nhint: did you mean create?\n")


def test_describe_without_a_service_lists_those_that_can_be_called(ostler: Any, answer: Any) -> None:
    other = replace(VOLUME, host="node2", here=False)
    gone = replace(VOLUME, topic="lamp", up=False)
    answer("service_list", [VOLUME, other, gone])
    assert ostler("describe").out == ("TOPIC   VERSION  HOSTS\nostler  -        node1\nvolume  1.0      node1, node2\n")


def test_whoami_shows_name_and_role(ostler: Any, answer: Any) -> None:
    answer("whoami", CallerIdentity(name="uid 7", role="viewer", uid=7, gid=8))
    assert ostler("whoami").out == "name  uid 7\nrole  viewer\nuid   7\ngid   8\n"
    key = CallerIdentity(name="key:node2", role="operator", key="abc", host="node2")
    answer("whoami", key)
    assert (
        ostler("whoami").out
        == "name           key:node2\nrole           operator\nkey            abc\nacts for host  node2\n"
    )
    assert json.loads(ostler("whoami", "--json").out)["uid"] == -1


def test_version_shows_both_versions_and_a_daemon_that_is_not_there(ostler: Any, answer: Any) -> None:
    answer("status", SimpleNamespace(version="9.9"))
    assert "daemon   9.9\n" in ostler("version").out
    answer("status", DaemonNotRunning("nothing listens"))
    assert ostler("version").code == 0
    assert "daemon   not running\n" in ostler("version").out
    assert json.loads(ostler("version", "--json").out)["daemon"] is None
    answer("status", NotPermitted("this user is not allowed to use the socket"))
    assert "daemon   unknown: this user is not allowed to use the socket\n" in ostler("version").out


def test_describe_lists_methods_or_shows_one(ostler: Any, answer: Any) -> None:
    answer("describe", [CREATE])
    assert ostler("describe", "volume").out == (
        "METHOD                                      ROLE      VERSION  DESCRIPTION\n"
        "create(name: str, size: int = 1) -> Volume  operator  1.1      Create a volume.\n"
    )
    assert "It is sparse." in ostler("describe", "volume", "create").out
    assert json.loads(ostler("describe", "volume", "create", "--json").out)["method"] == "create"


def test_what_holds_an_upgrade_back_is_shown_by_topic(ostler: Any, client: Any, answer: Any) -> None:
    old = MemberVersion(host="node2", version="1.0", why="down, counted for another 20s")
    pinned = MemberVersion(host="", version="1.0", why="pinned by `rpc_pins` in [messaging]")
    rows = [
        Upgrade(topic="lamp", upgrading=True, cap="1.0", newest="1.1", pinned_by=[old]),
        Upgrade(topic="other", cap="1.0", newest="1.0"),
        Upgrade(topic="volume", upgrading=True, cap="1.0", newest="1.1", pin="1.0", pinned_by=[pinned]),
    ]
    answer("service_versions", rows)
    assert ostler("service", "versions").out == (
        "TOPIC   USABLE  NEWEST  PIN   UPGRADING  LIMITED BY\n"
        "lamp    1.0     1.1     auto  yes        node2 1.0 (down, counted for another 20s)\n"
        "other   1.0     1.0     auto  no         -\n"
        "volume  1.0     1.1     1.0   yes        1.0 (pinned by `rpc_pins` in [messaging])\n"
    )
    answer("service_versions", rows[:1])
    assert json.loads(ostler("service", "versions", "lamp", "--json").out)[0]["pinned_by"][0]["host"] == "node2"
    assert client.calls[-1][2]["topic"] == "lamp"


def test_a_cast_says_that_it_was_accepted(ostler: Any, client: Any) -> None:
    assert ostler("cast", "volume", "scan", "deep=yes") == (0, "volume has accepted scan\n", "")
    assert client.casts == [("volume", "scan", {"deep": "yes"})]
    assert json.loads(ostler("cast", "volume", "scan", "--json").out)["accepted"] is True


# ---------------------------------------------------------------- events


def stream(pattern: str) -> Iterator[Event | Gap]:
    yield Event("volume", "node1", "created", {"name": "a\x1b"}, 7, 1, NOW)
    yield Gap("volume", "node1", 8, 9)
    yield Gap("volume", "node1", 0, 0)
    yield Event("volume", "node1", "deleted", {}, 10, 1, NOW)


def test_events_are_lines_and_gaps_are_seen(ostler: Any, client: Any) -> None:
    client.stream = stream
    assert ostler("events", "volume") == (
        0,
        (
            '2027-01-15 08:00:00 volume.node1.created #7 {"name":"a\\u001b"}\n'
            "-- missed: events 8 to 9 of volume on node1\n"
            "-- missed: an unknown number of events of volume on node1\n"
            "2027-01-15 08:00:00 volume.node1.deleted #10 {}\n"
        ),
        "",
    )


def test_events_as_json_are_one_object_a_line(ostler: Any, client: Any) -> None:
    client.stream = stream
    first, second = map(json.loads, ostler("--json", "events", "--count", "2").out.splitlines())
    assert (first["topic"], first["sequence"], first["payload"]) == ("volume", 7, {"name": "a\x1b"})
    assert second == {"gap": {"topic": "volume", "host": "node1", "first": 8, "last": 9, "journaled": False}}


def test_events_begin_where_they_are_asked_to(ostler: Any, client: Any) -> None:
    client.stream = lambda pattern: iter([])
    for words, since, last in [([], None, False), (["--from", "7"], 7, False), (["--last"], None, True)]:
        assert ostler("events", *words).code == 0
        assert client.events_options == {"since": since, "last": last, "refetch": True}


def test_events_end_cleanly_on_ctrl_c(ostler: Any, client: Any) -> None:
    def interrupted(pattern: str) -> Iterator[Any]:
        yield Event("volume", "node1", "created", {}, 7, 1, NOW)
        raise KeyboardInterrupt

    client.stream = interrupted
    code, out, err = ostler("events")
    assert (code, len(out.splitlines()), err) == (0, 1, "")
    assert client.closed == 1


# ---------------------------------------------------------------- locks


def test_locks_are_listed_with_who_holds_them_and_who_waits(ostler: Any, answer: Any) -> None:
    held = LockStatus(
        service="volume", name="volume-a\x1b", is_held=True, since=NOW - 12, host="node1", method="volume.clone",
        request_id="r1", thread="volume-1", is_cluster=True,
    )  # fmt: skip
    waiting = LockStatus(
        service="volume", name="volume-a\x1b", is_held=False, is_shared=True, since=NOW - 2, host="node1",
        method="volume (watch)", thread="watch",
    )  # fmt: skip
    answer("lock_list", [held, waiting])
    assert ostler("lock", "list", "--service", "volume").out == (
        "SERVICE  LOCK          STATE    MODE                FOR  BY              REQUEST  THREAD    HOST\n"
        "volume   volume-a\\x1b  held     exclusive, cluster  12s  volume.clone    r1       volume-1  node1\n"
        "volume   volume-a\\x1b  waiting  shared              2s   volume (watch)  -        watch     node1\n"
    )
    assert json.loads(ostler("lock", "list", "--json").out)[0]["request_id"] == "r1"


# ---------------------------------------------------------------- event handlers


def test_event_handlers_are_listed_with_their_errors(ostler: Any, answer: Any) -> None:
    waiting = EventHandlerStatus(
        service="sink", handler="on_created", patterns=["volume.*.created"], hosts=["node1"], handled=7, errors=1,
        last_error="volume.node1.created: ValueError: no", unreachable={"node2": "unreachable\x1b"},
    )  # fmt: skip
    answer("event_handlers", [waiting])
    assert ostler("handler", "list").out == (
        "SERVICE  HANDLER     PATTERNS          HOSTS  STATE    HANDLED  ERRORS  GAPS  WAITING  LAST ERROR\n"
        "sink     on_created  volume.*.created  node1  failing        7       1     0        0  "
        "volume.node1.created: ValueError: no; node2: unreachable\\x1b\n"
    )
    assert json.loads(ostler("handler", "list", "--json").out)[0]["errors"] == 1


def test_an_event_handler_has_one_state() -> None:
    def of(**facts: Any) -> str:
        return format_handler_state(EventHandlerStatus(service="s", handler="h", **{"hosts": ["node1"], **facts}))

    assert of() == "waiting"
    assert of(last_error="x") == "failing"
    assert of(unreachable={"node2": "x"}) == of(hosts=[]) == "not following all hosts"
    assert of(handling="a.b.c", handling_since=NOW, last_error="x") == "handling a.b.c for 0s"


# ---------------------------------------------------------------- periodic

TASK = PeriodicStatus(
    service="volume", task="refresh", spacing="30s", runs=3, errors=1, last_run=NOW - 10, last_seconds=0.25,
    next_run=NOW + 20,
)  # fmt: skip


def test_periodic_tasks_are_listed(ostler: Any, answer: Any) -> None:
    answer("periodic_list", [TASK])
    assert ostler("periodic", "list").out == (
        "SERVICE  TASK     SPACING  STATE    LAST RUN              TOOK  NEXT RUN  RUNS  ERRORS  LAST ERROR\n"
        "volume   refresh  30s      waiting  2027-01-15 07:59:50  250ms  in 20s       3       1  -\n"
    )


def test_a_task_is_run_paused_and_resumed(ostler: Any, client: Any, answer: Any) -> None:
    answer("periodic_run", TASK)
    answer("periodic_pause", lambda service, task, reason: PeriodicStatus(
        service=service, task=task, spacing="30s", paused=True, pause_reason=reason))  # fmt: skip
    answer("periodic_resume", lambda service, task: PeriodicStatus(service=service, task=task, spacing="30s"))
    assert ostler("periodic", "run", "volume", "refresh").out == "volume refresh started\n"
    assert ostler("periodic", "pause", "volume", "refresh").out == "volume refresh paused\n"
    assert ostler("periodic", "resume", "volume", "refresh").out == "volume refresh resumed\n"
    found = json.loads(ostler("periodic", "pause", "volume", "refresh", "--reason", "moved", "--json").out)
    assert (found["paused"], found["pause_reason"]) == (True, "moved")


def test_a_pause_that_is_not_stored_yet_is_said(ostler: Any, answer: Any) -> None:
    answer("periodic_pause", PeriodicStatus(
        service="volume", task="refresh", spacing="1s", paused=True, unsaved="the disk is full"))  # fmt: skip
    assert ostler("periodic", "pause", "volume", "refresh").out == (
        "volume refresh paused\nThis is in effect but not stored yet, a crash would lose it: the disk is full\n"
    )


def test_a_task_is_shown_with_its_last_runs(ostler: Any, answer: Any) -> None:
    runs = [
        PeriodicRunStatus(started=NOW - 60, seconds=0.25),
        PeriodicRunStatus(started=NOW - 30, seconds=61.0, error="OSError: \x1b[31mno lamp"),
    ]
    paused = replace(
        TASK, paused=True, paused_at=NOW - 5, paused_by="root", pause_reason="the array moves", window="01:00-05:00"
    )
    answer("periodic_show", PeriodicHistory(task=paused, runs=runs))
    shown = ostler("periodic", "show", "volume", "refresh").out
    for words in ("since 2027-01-15 07:59:55 by root: the array moves", "01:00-05:00", "250ms", "1min 1s", "no lamp"):
        assert words in shown
    assert "\x1b" not in shown
    assert len(json.loads(ostler("periodic", "show", "volume", "refresh", "--json").out)["runs"]) == 2


def test_a_task_has_one_state() -> None:
    def of(**facts: Any) -> str:
        return format_state(PeriodicStatus(service="s", task="t", spacing="1s", **facts))

    assert of(enabled=False, paused=True) == "disabled"
    assert of(paused=True, last_error="x") == "paused"
    assert of(last_error="x") == "failing"
    assert of(health="slow") == "slow"
    assert of(health="hung", running_since=NOW - 60).startswith("hung for ")
    assert of(held=True) == "held"
    assert of(postponed="it never matches") == "postponed"
    assert of() == "waiting"


# ---------------------------------------------------------------- log-level, dump, db


def test_the_log_level_is_shown_and_set(ostler: Any, client: Any, answer: Any) -> None:
    answer("log_levels", [LogLevel(logger="", level="info")])
    assert ostler("log-level").out == "LOGGER        LEVEL  ENDS\n(all others)  info   -\n"
    client.calls.clear()
    answer("log_level", [LogLevel(logger="ostler.store", level="debug", seconds_left=600.0)])
    shown = "LOGGER        LEVEL  ENDS\nostler.store  debug  in 10min\n"
    for words in (["ostler.store", "DEBUG"], ["debug", "ostler.store"]):
        assert ostler("log-level", *words, "--for", "10min").out == shown
    asked = {"level": "debug", "logger": "ostler.store", "seconds": 600.0}
    assert client.calls == [("ostler", "log_level", asked)] * 2
    assert json.loads(ostler("log-level", "--json").out) == [{"logger": "", "level": "info", "seconds_left": None}]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ostler.store", "loud"], "loud is not a log level"),
        (["ostler.store", "--for", "10min"], "no level was given"),
        (["debug", "--for", "10min", "--keep"], "cannot be combined"),
    ],
)
def test_a_log_level_that_says_nothing_is_refused_before_it_is_sent(
    ostler: Any, client: Any, words: list[str], why: str
) -> None:
    result = ostler("log-level", *words)
    assert (result.code, client.calls) == (2, [])
    assert why in result.err


def test_a_dump_is_readable_and_json(ostler: Any, answer: Any) -> None:
    found = {"threads": {"main": ["a:1 x", "b:2 y"]}, "queues": [{"name": "q", "length": 0}], "tasks": {}}
    answer("dump", found)
    assert ostler("dump").out == (
        "threads:\n  main:\n    - a:1 x\n    - b:2 y\nqueues:\n  - name: q\n    length: 0\ntasks: -\n"
    )
    assert json.loads(ostler("dump", "--json").out) == found


def test_the_database_is_checked(ostler: Any, answer: Any) -> None:
    answer("db_check", [])
    assert ostler("db", "check") == (0, "The database is intact.\n", "")
    answer("db_check", ["page 3 is lost"])
    assert ostler("db", "check") == (1, "page 3 is lost\n", "")
    code, out, _ = ostler("db", "check", "--json")
    assert (code, json.loads(out)) == (1, {"ok": False, "problems": ["page 3 is lost"]})


def test_the_database_is_vacuumed(ostler: Any, answer: Any) -> None:
    answer("db_vacuum", VacuumResult(before=4096 * 1024, after=1024 * 1024))
    assert ostler("db", "vacuum") == (0, "The database has 1024 KiB; before, it had 4096 KiB\n", "")
    assert json.loads(ostler("db", "vacuum", "--json").out) == {"before": 4096 * 1024, "after": 1024 * 1024}


def test_a_backup_is_written_where_the_user_is(
    ostler: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client.stream = lambda topic, method, **_: iter([b"one ", b"two"])
    assert ostler("db", "backup", "copy.db").out == f"The database was copied to {tmp_path}/copy.db\n"
    assert (tmp_path / "copy.db").read_bytes() == b"one two"
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    other = f"{tmp_path}/x/copy.db"
    assert json.loads(ostler("db", "backup", other, "--json").out) == {"path": other}
    assert ostler("db", "backup", "copy.db").code == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


# ---------------------------------------------------------------- config

RUNNING = [
    OptionValue(path="daemon.host", value="node1", origin="/etc/ostler/ostler.toml:2:1"),
    OptionValue(path="log.level", value="info", origin="default"),
    OptionValue(path="old.key", value=1, origin="/etc/ostler/ostler.toml:9:1"),
]
FILES = [
    OptionValue(path="daemon.host", value="node1", origin="/etc/ostler/ostler.toml:3:1"),
    OptionValue(path="log.level", value="debug", origin="/etc/ostler/conf.d/a.toml:1:1"),
]


def test_the_running_configuration_is_shown_with_origins(ostler: Any, answer: Any) -> None:
    answer("config", RUNNING)
    assert ostler("config", "cat", "--running", "--no-defaults").out == (
        '[daemon]\nhost = "node1"  # /etc/ostler/ostler.toml:2:1\n\n[old]\nkey = 1  # /etc/ostler/ostler.toml:9:1\n'
    )
    assert 'level = "info"  # default' in ostler("config", "cat", "--running").out


def test_a_diff_has_a_row_for_what_is_not_the_same() -> None:
    place = "/etc/ostler/conf.d/a.toml:1:1"
    assert list(difference_rows(RUNNING, FILES, {("log",): LogSection()})) == [
        OptionDifference(option="log.level", running="info", files="debug", origin=place, needs="live"),
        OptionDifference(option="old.key", running=1, files=None, origin="", needs="live"),
    ]


def test_yaml_and_names_are_formats_of_every_list(ostler: Any, answer: Any) -> None:
    answer("service_list", [VOLUME])
    assert ostler("service", "list", "-o", "name").out == "volume\n"
    assert ostler("service", "list", "-o", "yaml").out.startswith("- topic: volume\n  host: node1\n")
    assert ostler("status", "-o", "nam").err == (
        "ostler: output format nam not found\nhint: did you mean `-o name`?\n"
    )  # fmt: skip


def test_a_command_that_changes_something_cannot_be_watched(ostler: Any, client: Any) -> None:
    result = ostler("service", "enable", "volume", "--watch")
    assert (result.code, client.calls) == (2, [])
    assert "--watch is for commands that show something" in result.err


def test_each_call_is_reported_without_its_arguments_if_wanted(ostler: Any, answer: Any) -> None:
    answer("list", [], topic="volume")
    assert "call volume.list: 0." in ostler("call", "volume", "list", "key=secret", "-v").err
    assert "secret" not in ostler("call", "volume", "list", "key=secret", "-v").err


def test_the_log_is_followed_one_record_a_line(ostler: Any, client: Any) -> None:
    record = FollowedRecord(
        at=NOW,
        level="error",
        logger="ostler.x",
        message="no\x1b",
        fields={"service": "a"},
        detail="\n    Trace\n    back",
    )
    asked = []

    def stream(topic: str, method: str, **arguments: Any) -> Any:
        asked.append((topic, method, arguments))
        yield FollowedRecords()
        yield FollowedRecords(records=[record], dropped=3)

    client.stream = stream
    result = ostler("log", "-f", "--level", "DEBUG", "--service", "a")
    assert result.out == "2027-01-15 08:00:00 ERROR    ostler.x: no\\x1b [service=a]\n    Trace\n    back\n"
    assert result.err == "-- missed: 3 records came faster than they were read\n"
    wanted = {"level": "debug", "logger": "", "service": "a", "request": ""}
    assert asked == [("ostler", "log_follow", wanted)]
    assert json.loads(ostler("log", "-f", "--json").out)["message"] == "no\x1b"
    assert "needs `--follow`" in ostler("log", "--level", "debug").err
