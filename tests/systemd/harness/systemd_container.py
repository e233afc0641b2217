"""A real systemd to test against: booted in a container on a copy-on-write view of this machine.

Nothing inside reaches this machine's disk, and everything is gone with `close`, or when this process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

BOOT = Path(__file__).parent / "boot.sh"
TOOLS = {
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "dbus-daemon": "dbus",
}
_FOLDER = "ostler-systemd-"
_HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")


def unavailable() -> str:
    """Return why no systemd can be booted here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root to boot a real systemd"
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    return f"needs {', '.join(missing)}: apt install {' '.join(missing)}" if missing else ""


class BootFailed(Exception):
    """The container did not come up; says what it printed."""


class SystemdContainer:
    """A booted systemd.

    Args:
        folder: An empty folder for what belongs to it.
        options: More options for systemd-nspawn, such as `--bind-ro=…`.
        root: The root it is a view of.
        timeout: Seconds it may take to boot.
    """

    def __init__(
        self, folder: Path, options: Sequence[str] = (), *, root: Path = Path("/"), timeout: float = 30
    ) -> None:
        self._folder = folder
        self._cgroup = f"ostler-test-{os.getpid()}-{folder.name}"
        self._log = folder / "console.log"
        self._leader = 0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._boot(options, root, timeout)
        except BaseException:
            self.close()
            raise

    def _boot(self, options: Sequence[str], root: Path, timeout: float) -> None:
        base = self._folder / "machine"
        base.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, self._log.open("wb") as log:
            listener.bind(str(self._folder / "notify"))
            listener.settimeout(1)
            # In a process namespace of its own everything dies with its first process; that one dies with unshare, and
            # unshare with us.
            namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
            command = ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces]
            self._process = subprocess.Popen(
                [*command, "sh", str(BOOT), str(base), self._cgroup, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": str(self._folder / "notify"), "ROOT": str(root)},
            )
            self._await_ready(listener, time.monotonic() + timeout)
        nspawn = _children(self._process.pid)[0]
        self._leader = next(pid for pid in _children(nspawn) if _innermost_pid(pid) == 1)

    def _await_ready(self, listener: socket.socket, until: float) -> None:
        assert self._process is not None
        while self._process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in listener.recv(4096).splitlines():
                    return
        why = "took too long" if self._process.poll() is None else f"ended with {self._process.returncode}"
        raise BootFailed(f"the container {why} and printed:\n{self._log.read_text(errors='replace')[-3000:]}")

    def close(self) -> None:
        """Kill the machine and remove what belonged to it; safe at any point, also twice."""
        if self._process is not None:
            for nspawn in _children(self._process.pid):
                os.kill(nspawn, signal.SIGKILL)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        for hierarchy in _HIERARCHIES:
            _remove_cgroup(Path(hierarchy) / self._cgroup)
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- files -----------------------------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """Return a path inside as one that can be opened from here. Absolute symbolic links inside lead astray."""
        return Path(f"/proc/{self._leader}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside, with the folders it needs; not through a link, which could lead out to this machine."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(text)

    def read(self, inside: str) -> str:
        """Return the text of a file inside."""
        return self.path(inside).read_text()

    # --- commands --------------------------------------------------------------------------------------------------

    def enter(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` inside."""
        # nsenter forks to enter the process namespace; without setpriv its child would outlive it.
        namespaces = ["-m", "-u", "-i", "-n", "-p", "-C"]
        return ["nsenter", "-t", str(self._leader), *namespaces, "--", "setpriv", "--pdeathsig", "KILL", *argv]

    def run(
        self, *argv: str, check: bool = True, timeout: float = 30, stdin: str = "", user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as `user`; with `check` a failure is an error that shows what it printed."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        done = subprocess.run(
            self.enter(*as_user, *argv),
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def systemctl(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run systemctl inside; when it fails for a unit, the error shows the end of the unit's journal."""
        done = self.run("systemctl", *arguments, check=False, timeout=timeout)
        if check and done.returncode:
            journal = self.run("journalctl", "-n", "40", "-o", "short-precise", "--no-pager", check=False).stdout
            raise AssertionError(
                f"systemctl {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}\n{journal}"
            )
        return done

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit."""
        lines = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).stdout.splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def main_pid(self, unit: str) -> int:
        """Return the main process of a unit as this machine numbers it, for signals; 0 when there is none."""
        inside = int(self.show(unit, "MainPID")["MainPID"])
        if not inside:
            return 0
        namespace = Path(f"/proc/{self._leader}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            pid = int(status.parent.name)
            with contextlib.suppress(OSError):
                if _innermost_pid(pid) == inside and (status.parent / "ns/pid").readlink() == namespace:
                    return pid
        return 0

    # --- the journal -----------------------------------------------------------------------------------------------

    def journal(self, unit: str, *, after: str = "") -> list[dict[str, Any]]:
        """Return a unit's entries with all their fields, oldest first; with `after`, those after a cursor."""
        since = [f"--after-cursor={after}"] if after else []
        self.run("journalctl", "--sync", check=False)
        lines = self.run("journalctl", "-u", unit, "-o", "json", "--all", *since).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def cursor(self) -> str:
        """Return where the journal ends now, for `after`."""
        self.run("journalctl", "--sync", check=False)
        lines = self.run("journalctl", "-n", "1", "--show-cursor", "-q", "-o", "cat").stdout.splitlines()
        return lines[-1].removeprefix("-- cursor: ")

    def await_entry(
        self, unit: str, wanted: str | Callable[[dict[str, Any]], bool], *, after: str = "", timeout: float = 20
    ) -> dict[str, Any]:
        """Wait for a journal entry of a unit whose message contains `wanted`, or for which it returns true."""
        matches = wanted if callable(wanted) else lambda entry: wanted in str(entry.get("MESSAGE", ""))
        since = [f"--after-cursor={after}"] if after else []
        argv = self.enter("journalctl", "-u", unit, "-o", "json", "--all", "-n", "all", "--follow", *since)
        seen = []
        with _following(argv, timeout) as lines:
            for line in lines:
                entry = json.loads(line)
                seen.append(str(entry.get("MESSAGE")))
                if matches(entry):
                    return entry
        raise AssertionError(f"{unit} did not log {wanted!r} within {timeout} s, but:\n" + "\n".join(seen[-30:]))


@contextlib.contextmanager
def booted(options: Sequence[str] = (), *, root: Path = Path("/")) -> Iterator[SystemdContainer]:
    """Boot a machine, and take it away at the end."""
    _remove_leftovers()
    machine = SystemdContainer(Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-")), options, root=root)
    try:
        yield machine
    finally:
        machine.close()


@contextlib.contextmanager
def _following(argv: list[str], timeout: float) -> Iterator[Iterator[str]]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        deadline = threading.Timer(timeout, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            yield iter(process.stdout)
        finally:
            deadline.cancel()
            process.kill()


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if f"\nPPid:\t{parent}\n" in status.read_text():
                found.append(int(status.parent.name))
    return found


def _innermost_pid(pid: int) -> int:
    """Return the number that a process has in its own process namespace."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


def _remove_leftovers() -> None:
    """Remove the empty folders and control groups of test runs that were killed; nothing else outlives them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():
            shutil.rmtree(folder, ignore_errors=True)
    for hierarchy in _HIERARCHIES:
        for group in Path(hierarchy).glob("ostler-test-*"):
            if not Path("/proc", group.name.split("-")[2]).exists():
                _remove_cgroup(group)


def _remove_cgroup(group: Path) -> None:
    if group.is_dir():
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
