"""The programs that some peers talk through, each started below a private folder and on free ports of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from children import Child
from provide import Places

FREE_PORT = "free port"
_PATIENCE = 90.0
_HOST = "127.0.0.1"
_NODE = "ostler-bench@localhost"


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses."""
    with socket.socket() as found:
        found.bind((_HOST, 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def running(name: str, places: Places, folder: Path) -> Iterator[tuple[str, str]]:
    """Run a program; give the address for the peer, and the version of the program.

    Args:
        name: The program; "free port" for an address and nothing there, "" for neither.
        places: Where programs lie.
        folder: Where it may write.
    """
    start = {"rabbitmq": _rabbitmq, "nats-server": _nats, "dbus-daemon": _dbus}.get(name)
    if start is None:
        yield (f"{_HOST}:{free_port()}" if name == FREE_PORT else ""), ""
        return
    folder.mkdir(exist_ok=True)
    with start(places.program(name), folder) as found:
        yield found


@contextlib.contextmanager
def _nats(program: Path, folder: Path) -> Iterator[tuple[str, str]]:
    port = free_port()
    with Child([str(program), "-a", _HOST, "-p", str(port), "-l", str(folder / "log")], folder / "err") as child:
        _await_port(child, port)
        yield f"{_HOST}:{port}", _version([str(program), "--version"], r"v(\d[\d.]*)")
        child.terminate()


@contextlib.contextmanager
def _dbus(program: Path, folder: Path) -> Iterator[tuple[str, str]]:
    address = f"unix:path={folder}/bus.sock"
    arguments = [str(program), "--session", "--nofork", "--nopidfile", "--print-address", f"--address={address}"]
    with Child(arguments, folder / "err") as child:
        child.line()
        yield address, _version([str(program), "--version"], r"Daemon (\d[\d.]*)")
        child.terminate()


@contextlib.contextmanager
def _rabbitmq(program: Path, folder: Path) -> Iterator[tuple[str, str]]:
    port = free_port()
    settings = _settings_of_rabbitmq(program, folder, port)
    # epmd as a child: otherwise the Erlang machine leaves one behind, as a daemon.
    epmd = shutil.which("epmd", path=settings["PATH"])
    if epmd is None:
        raise RuntimeError("there is no epmd beside rabbitmq-server")
    with (
        Child([epmd, "-address", _HOST, "-port", settings["ERL_EPMD_PORT"]], folder / "epmd", **settings) as names,
        Child([str(program)], folder / "err", **settings) as child,
    ):
        _await_port(child, port)
        log = (folder / "log" / f"{_NODE}.log").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"RabbitMQ (\d[\d.]*) on Erlang", log) or re.search(r"RabbitMQ (\d[\d.]*)", log)
        yield f"{_HOST}:{port}", found[1] if found else "?"
        child.terminate()
        names.terminate()


def _settings_of_rabbitmq(program: Path, folder: Path, port: int) -> dict[str, str]:
    root = program.parents[4]
    path = os.environ.get("PATH", os.defpath)
    settings = {}
    if root != Path("/"):
        # Unpacked, not installed: the scripts of Erlang know only the place where it would be installed.
        path = f"{_erlang(root, folder)}:{root / 'usr/bin'}:{path}"
        settings["LD_LIBRARY_PATH"] = ":".join(str(found) for found in root.glob("usr/lib/*-linux-gnu*"))
    (folder / "log").mkdir(exist_ok=True)
    (folder / "plugins").write_text("[].\n", encoding="ascii")
    (folder / "rabbitmq.conf").touch()
    return settings | {
        "PATH": path,
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": _HOST,
        "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the server, there is no shell between
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_NODENAME": _NODE,
        "RABBITMQ_NODE_IP_ADDRESS": _HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }


def _erlang(root: Path, folder: Path) -> Path:
    """Write an `erl` that knows where Erlang lies; return the folder it stands in."""
    erlang = root / "usr/lib/erlang"
    binaries = next(erlang.glob("erts-*")) / "bin"
    (folder / "bin").mkdir(exist_ok=True)
    script = folder / "bin" / "erl"
    script.write_text(
        f"#!/bin/sh\nexport ROOTDIR='{erlang}' BINDIR='{binaries}' EMU=beam PROGNAME=erl\n"
        f"exec '{binaries}/erlexec' \"$@\"\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return script.parent


def _await_port(child: Child, port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while child.running and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"it did not listen; it said: {child.said()}")


def _version(arguments: list[str], pattern: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=10)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"
