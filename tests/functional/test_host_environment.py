"""What the machine can be like: left-over sockets, other users, no systemd, folders that cannot be written."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from daemon_process import HERE, OSTLER, DaemonProcess, as_nobody, cannot_become_nobody

from ostler import Client

ECHO = '[services.echo]\nmanager = "faulty_managers:EchoManager"\n'
VOLUME = """
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"
reserve = "0"
"""


@pytest.fixture
def another_user() -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)


def answers(daemon: DaemonProcess) -> bool:
    return bool(daemon.call("echo", "echo", text="well")["text"] == "well")


def refused(daemon: DaemonProcess, *, before: list[str] | None = None) -> str:
    """Start a daemon that cannot start; return why, which is one line."""
    daemon.start(wait=False, before=before or [])
    assert daemon.wait_end() == 1
    assert "Traceback" not in daemon.log
    assert not any(fields.get("READY") for fields in daemon.notices.received)
    (why,) = [line for line in daemon.log.splitlines() if " CRITICAL " in line]
    assert any("could not start" in fields.get("STATUS", "") for fields in daemon.notices.received)
    return why


# --------------------------------------------------------------------------------------------------------- sockets


@pytest.mark.failure_mode("Machine", "a socket left over from a dead daemon, and one of a living daemon")
@pytest.mark.parametrize("name", ["rpc.sock", "events.sock"])
def test_a_socket_left_over_from_a_dead_daemon(make_daemon, name: str) -> None:
    daemon = make_daemon(ECHO)
    (daemon.root / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(daemon.root / "run" / name))
    daemon.command("status", check=3)
    daemon.start()
    assert answers(daemon)
    assert daemon.stop() == 0
    assert list((daemon.root / "run").iterdir()) == []


@pytest.mark.failure_mode("Machine", "a socket left over from a dead daemon, and one of a living daemon")
def test_a_socket_of_a_living_daemon(make_daemon) -> None:
    living = make_daemon(ECHO).start()
    other = make_daemon(ECHO)  # with a state of its own, so that only the socket stands in its way
    (other.root / "run").symlink_to(living.root / "run")
    before = sorted(path.stat().st_ino for path in (living.root / "run").iterdir())
    why = refused(other)
    assert "another daemon already listens on" in why
    assert "--root" in why
    assert sorted(path.stat().st_ino for path in (living.root / "run").iterdir()) == before
    assert answers(living)


@pytest.mark.failure_mode("Machine", "a socket left over from a dead daemon, and one of a living daemon")
def test_the_state_of_a_living_daemon(make_daemon) -> None:
    living = make_daemon(ECHO).start()
    other = make_daemon(ECHO)
    (other.root / "state").symlink_to(living.root / "state")
    assert str(living.running.pid) in refused(other)
    assert not (other.root / "run").exists()
    assert answers(living)


def test_something_else_in_the_place_of_a_socket_is_left_alone(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    (daemon.root / "run").mkdir()
    (daemon.root / "run" / "rpc.sock").write_text("my diary")
    why = refused(daemon)
    assert "is not a socket" in why
    assert "move it away" in why
    assert (daemon.root / "run" / "rpc.sock").read_text() == "my diary"


# --------------------------------------------------------------------------------------------------- surroundings


@pytest.mark.failure_mode("Machine", "started in an empty environment")
def test_started_in_an_empty_environment(make_daemon) -> None:
    daemon = make_daemon(VOLUME)
    daemon.environ = {}
    daemon.start(wait=False)
    daemon.wait_log("ready:")
    daemon.command("volume", "create", "data", "--size", "1MiB", env={})
    assert "data" in daemon.command("volume", "list", env={}).stdout
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Machine", "started without systemd")
def test_without_systemd(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    daemon.environ = {name: value for name, value in daemon.environ.items() if name != "NOTIFY_SOCKET"}
    daemon.start(wait=False)
    daemon.wait_log("ready:")
    assert daemon.status()["not_well"] == []
    daemon.command("reload")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reload for SIGHUP")
    assert answers(daemon)
    assert daemon.stop() == 0
    assert daemon.notices.received == []


def test_a_notify_socket_where_nobody_listens_harms_nothing(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    daemon.environ["NOTIFY_SOCKET"] = str(daemon.root / "nobody")
    daemon.start(wait=False)
    daemon.wait_log("ready:")
    assert answers(daemon)
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Machine", "started as a user")
@pytest.mark.root
def test_started_as_a_user(make_daemon, another_user) -> None:
    daemon = make_daemon(VOLUME)
    daemon.give_to_nobody()
    daemon.start(before=as_nobody())
    user = as_nobody()
    status = Path(f"/proc/{daemon.running.pid}/status").read_text()
    assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
    daemon.command("volume", "create", "data", "--size", "1MiB", before=user)  # its own user may do all
    daemon.command("volume", "create", "more", "--source", "data")  # and so may root
    for who in ([], user):
        said = daemon.command("volume", "attach", "data", check=1, before=who).stderr
        assert "cannot attach volumes on this host" in said
        assert "attach.conf" in said
    assert [row["state"] for row in daemon.json("volume", "list")] == ["available", "available"]
    assert {path.stat().st_uid for path in (daemon.root / "volumes").rglob("*")} == {65534}
    assert daemon.stop() == 0


@pytest.mark.root
def test_a_user_without_a_root_gets_places_of_their_own(make_daemon, another_user) -> None:
    daemon = make_daemon()
    home = daemon.root / "home"
    (home / ".config" / "ostler").mkdir(parents=True)
    (home / ".config" / "ostler" / "ostler.toml").write_text(ECHO)
    daemon.give_to_nobody()
    environ = {"HOME": str(home), "PYTHONPATH": str(HERE), "NOTIFY_SOCKET": str(daemon.notices.path)}
    process = subprocess.Popen(
        [*as_nobody(), OSTLER, "run"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        daemon.notices.ready()
        asked = subprocess.run(
            [*as_nobody(), OSTLER, "status"], env=environ, capture_output=True, text=True, check=False, timeout=30
        )
        assert asked.returncode == 0, asked.stderr
        assert str(home / ".local" / "state") in asked.stdout
    finally:
        process.terminate()
        assert process.wait(20) == 0


# -------------------------------------------------------------------------------------------------------- folders


def mounts_read_only(folder: Path) -> list[str]:
    """Return the words before a command that has a folder read-only, in a mount namespace of its own."""
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(folder)]


def cannot_mount() -> str:
    if os.geteuid() != 0:
        return "needs root, to mount"
    tried = subprocess.run([*mounts_read_only(HERE), "true"], capture_output=True, text=True, check=False)
    return tried.stderr


@pytest.mark.failure_mode("Machine", "a read-only runtime directory")
@pytest.mark.root
def test_a_read_only_runtime_directory(make_daemon) -> None:
    if why := cannot_mount():
        pytest.skip(why)
    daemon = make_daemon(ECHO)
    (daemon.root / "run").mkdir()
    why = refused(daemon, before=mounts_read_only(daemon.root / "run"))
    assert "the runtime directory cannot be used" in why
    assert "its file system is read-only" in why
    assert "make the directory writable" in why


@pytest.mark.failure_mode("Machine", "a read-only runtime directory")
@pytest.mark.root
def test_a_runtime_directory_that_another_user_owns(make_daemon, another_user) -> None:
    daemon = make_daemon(ECHO)
    daemon.give_to_nobody()
    (daemon.root / "run").mkdir(mode=0o755)
    why = refused(daemon, before=as_nobody())
    assert "the runtime directory cannot be used" in why
    assert "no permission to write to it" in why


def test_a_runtime_directory_that_cannot_be_made_is_one_line(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    (daemon.root / "run").write_text("a file")
    why = refused(daemon)
    assert f"the runtime directory cannot be used: {daemon.root}/run is not a directory; move it away" in why
    assert "--root" in why


def test_a_root_that_is_too_long_for_a_socket_is_refused_before_anything_is_made(make_daemon) -> None:
    daemon = make_daemon()
    long = daemon.root / ("x" * 100)
    for verb in ("run", "status", "check"):
        done = subprocess.run(
            [OSTLER, "--root", str(long), verb], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 78
        assert "choose a root with a shorter path" in done.stderr
        assert "Traceback" not in done.stderr
    assert not long.exists()


def test_a_state_folder_that_cannot_be_used_is_one_line(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    (daemon.root / "state").write_text("a file")
    assert "state" in refused(daemon)
    assert not (daemon.root / "run").exists()


@pytest.mark.failure_mode("Machine", "output that is closed, full or not read")
@pytest.mark.parametrize("output", ["<&- >&- 2>&-", "</dev/null >/dev/full 2>/dev/full"])
def test_a_daemon_whose_output_is_closed_or_full_starts_and_answers(make_daemon, output: str) -> None:
    daemon = make_daemon(ECHO)
    daemon.start(before=["bash", "-c", f'exec "$@" {output}', "-"])
    assert answers(daemon)
    where = [str(Path(f"/proc/{daemon.process.pid}/fd/{number}").readlink()) for number in range(3)]
    assert all(path in ("/dev/null", "/dev/full") for path in where)
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Machine", "no descriptors left")
def test_a_daemon_with_few_descriptors_answers_while_clients_want_all_of_them(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    daemon.start(before=["bash", "-c", 'ulimit -n 64; exec "$@"', "-"])
    daemon.wait_log("open files are limited to 64")
    clients: list[socket.socket] = []
    with Client(root=str(daemon.root), timeout=20) as held:
        assert held.call("echo", "echo", text="first")["text"] == "first"
        for name in ["rpc.sock", "events.sock"] * 100:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].connect(str(daemon.root / "run" / name))
        assert held.call("echo", "echo", text="well")["text"] == "well"
        held.call("ostler", "reload")
        for client in clients:
            client.close()
    assert answers(daemon)
    assert daemon.stop() == 0
