"""Who may do what, with users of the kernel's; and what is said when nobody is there to be asked."""

from __future__ import annotations

import grp
import itertools
import json
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from daemon_process import NOBODY, OSTLER, DaemonProcess, as_nobody, cannot_become_nobody, wait_for

from ostler.cli.command_line import run_command
from ostler.cli.command_tree import root_command

VOLUME = """
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"
"""
CREATE = ("volume", "create", "data", "--size", "1MiB")
# What answers without a daemon.
OFFLINE = {
    "run",
    "check",
    "config cat",
    "config schema",
    "config set",
    "db restore",
    "db migrate",
    "plugin new",
    "plugin check",
    "plugin show",
    "plugin api",
    "plugin install",
    "plugin remove",
    "plugin replay",
    "plugin freeze",
    "plugin enable",
    "plugin disable",
    "plugin reset",
    "config unset",
    "help",
    "version",
    "completion",
} | {f"keys {verb}" for verb in ("new", "show", "list")}


@pytest.fixture(scope="module")
def another_user() -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)


def running(daemon: DaemonProcess, access: str = "") -> DaemonProcess:
    daemon.make_traversable()
    daemon.configure(VOLUME + access)
    return daemon.start()


def nobody(daemon: DaemonProcess, *arguments: str, check: int, group: int = NOBODY) -> str:
    return daemon.command(*arguments, check=check, before=as_nobody(group)).stderr


@pytest.mark.root
def test_a_user_without_a_role_is_told_so_whatever_it_asks_for(make_daemon, another_user) -> None:
    daemon = running(make_daemon(), f'[access]\nviewer = ["{NOBODY - 1}"]\n')
    before = daemon.files()
    for verb in (("status",), ("volume", "list"), ("events",), CREATE, ("dump",), ("reload",)):
        said = nobody(daemon, *verb, check=4)
        assert f"uid {NOBODY} has no role here" in said
        assert "[access]" in said
    assert daemon.files() == before
    assert daemon.json("volume", "list") == []


@pytest.mark.root
def test_a_viewer_may_look_and_not_touch(make_daemon, another_user) -> None:
    daemon = running(make_daemon(), f'[access]\nviewer = ["{NOBODY}"]\n')
    nobody(daemon, "status", check=0)
    nobody(daemon, "volume", "list", check=0)
    assert f"needs the role operator, uid {NOBODY} has viewer" in nobody(daemon, *CREATE, check=4)
    assert daemon.json("volume", "list") == []


@pytest.mark.root
def test_an_operator_by_group_may_work_and_not_reload(make_daemon, another_user) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, NOBODY))
    daemon = running(make_daemon(), f'[access]\noperator = ["@{group.gr_name}"]\n')
    nobody(daemon, *CREATE, check=4)
    nobody(daemon, *CREATE, check=0, group=group.gr_gid)
    assert [row["name"] for row in daemon.json("volume", "list")] == ["data"]
    assert "needs the role admin" in nobody(daemon, "reload", check=4, group=group.gr_gid)


@contextmanager
def following(daemon: DaemonProcess, before: list[str]) -> Iterator[Callable[[], str]]:
    """Follow events as another user; yields what makes volumes until one is heard of, and returns that line."""
    follower = subprocess.Popen(
        [*before, OSTLER, "--root", str(daemon.root), "--json", "events", "volume"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(follower.stdout.readline()))
    reader.start()
    names = itertools.count()

    def heard() -> str:
        wait_for(lambda: daemon.command("volume", "create", f"v{next(names)}", "--size", "1MiB") and lines, "an event")
        return lines[0]

    try:
        yield heard
    finally:
        follower.kill()
        reader.join()
        follower.communicate()


@pytest.mark.root
def test_a_reload_of_access_takes_effect_both_ways(make_daemon, another_user) -> None:
    daemon = running(make_daemon())
    nobody(daemon, "status", check=4)
    daemon.configure(VOLUME + '[access]\nviewer = ["*"]\n')
    daemon.command("reload")
    nobody(daemon, "status", check=0)
    with following(daemon, before=as_nobody()) as heard:
        assert json.loads(heard())["topic"] == "volume"
    daemon.configure(VOLUME)
    daemon.command("reload")
    nobody(daemon, "status", check=4)
    nobody(daemon, "events", check=4)


@pytest.mark.root
def test_as_long_as_nobody_else_has_a_role_the_sockets_are_closed_to_others(make_daemon, another_user) -> None:
    daemon = running(make_daemon())
    modes = [stat.S_IMODE((daemon.root / "run" / name).stat().st_mode) for name in ("rpc.sock", "events.sock")]
    assert modes == [0o600, 0o600]
    said = nobody(daemon, "status", check=4)
    assert "this user is not allowed to use the socket" in said
    assert "[access]" in said
    daemon.configure(VOLUME + f'[access]\nviewer = ["{NOBODY}"]\n')
    daemon.command("reload")
    nobody(daemon, "status", check=0)
    daemon.configure(VOLUME)
    daemon.command("reload")
    assert "this user is not allowed to use the socket" in nobody(daemon, "status", check=4)


@pytest.mark.root
def test_a_socket_that_may_not_be_used_is_said_so(make_daemon, another_user) -> None:
    daemon = running(make_daemon(), '[messaging]\nsocket_mode = "0600"\n')
    said = nobody(daemon, "status", check=4)
    assert "this user is not allowed to use the socket" in said
    assert "socket_mode" in said
    assert "is not allowed to use" in nobody(daemon, "events", check=4)
    daemon.command("status")


@pytest.mark.root
def test_a_folder_that_may_not_be_entered_is_no_dead_daemon(make_daemon, another_user) -> None:
    daemon = make_daemon(VOLUME).start()
    assert "this user is not allowed to use the socket" in nobody(daemon, "status", check=4)


# --------------------------------------------------------------------------------------------- nobody is there


NEEDS = {
    "call": ["volume", "list_volumes"], "cast": ["volume", "check"], "service delete": ["volume"],
    "service force-down": ["volume", "--host", "node2", "--undo"],
}  # fmt: skip


def verbs(command: Any, *words: str) -> Iterator[list[str]]:
    """Yield every verb that talks to the daemon, with something for each argument that it needs."""
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from verbs(command.get_command(None, name), *words, name)
    elif " ".join(words) not in OFFLINE:
        needed = [each for each in command.params if each.required]
        typed = [[each.opts[0], "1"] if each.param_type_name == "option" else ["1"] for each in needed]
        given = NEEDS.get(" ".join(words), [word for pair in typed for word in pair])
        yield [*words, *given]


def test_every_verb_says_how_to_start_a_daemon_that_is_not_running(tmp_path, capsys) -> None:
    (tmp_path / "etc").mkdir()
    tried = list(verbs(root_command()))
    assert {"status", "call", "volume", "scheduler", "db"} <= {words[0] for words in tried}
    for words in tried:
        assert run_command(["--root", str(tmp_path), *words], {}) == 3, words
        out, err = capsys.readouterr()
        assert out == ""
        socket = tmp_path / "run" / ("events.sock" if words == ["events"] else "rpc.sock")
        assert err.splitlines() == [
            f"ostler: the daemon is not running: nothing listens on {socket}",
            f"hint: start it with `ostler --root {tmp_path} run`",
        ]
    assert [path.name for path in tmp_path.iterdir()] == ["etc"]


def test_the_real_command_fails_the_same_way(make_daemon) -> None:
    daemon = make_daemon(VOLUME)
    for words in (["status"], ["volume", "list"]):
        assert f"start it with `ostler --root {daemon.root} run`" in daemon.command(*words, check=3).stderr
    error = daemon.command("--json", "status", check=3).stderr
    assert '"exit_code":3' in error.replace(" ", "")
