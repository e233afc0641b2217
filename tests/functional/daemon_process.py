"""The real daemon as a child process: started, told things, watched, and always gone at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ostler import Client
from support.json_documents import check_documents

HERE = Path(__file__).resolve().parent
OSTLER = Path(sys.executable).with_name("ostler")
NOBODY = 65534
WAIT_TIMEOUT = 20.0
"""Seconds after which a test stops waiting for something that should have come long ago."""


def as_nobody(group: int = NOBODY) -> list[str]:
    """Return the words before a command that make it that of a user who has nothing; the process stays the same.

    The interpreter may live below a folder that is closed to others, such as /root: then the command sees that folder
    open, in a mount namespace of its own.
    """
    needed = [Path(sys.base_prefix), Path(sys.prefix), HERE]
    closed = [each for path in needed for each in reversed([path, *path.parents]) if not each.stat().st_mode & 1]
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={group}", "--clear-groups", "--"]
    if not closed:
        return become
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OPENED, "sh", str(closed[0]), *become]


_OPENED = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" "$1"
chmod o+x "$1"
shift
cd /
exec "$@"
"""


def cannot_become_nobody() -> str:
    """Return why these tests cannot run the command as another user; empty when they can."""
    if os.geteuid() != 0:
        return "needs root, to become another user"
    tried = subprocess.run([*as_nobody(), OSTLER, "--version"], capture_output=True, text=True, check=False)
    return f"another user cannot run {OSTLER}: {tried.stderr}" if tried.returncode else ""


class NotifySocket:
    """Stands in for systemd: receives what a daemon tells its notify socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[dict[str, str]] = []
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            fields = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
            with self._changed:
                self.received.append(fields)
                self._changed.notify_all()

    def wait(self, fits: Callable[[dict[str, str]], bool], *, after: int = 0, timeout: float = WAIT_TIMEOUT) -> int:
        """Wait for a datagram that fits; return how many had come with it, for the next `after`."""
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                for number, fields in enumerate(self.received[after:], after + 1):
                    if fits(fields):
                        return number
                if not self._changed.wait(max(0.0, until - time.monotonic())):
                    raise AssertionError(f"nothing fitting among {self.received[after:]}")

    def ready(self, after: int = 0, timeout: float = WAIT_TIMEOUT) -> int:
        """Wait for READY=1."""
        return self.wait(lambda fields: fields.get("READY") == "1", after=after, timeout=timeout)

    def close(self) -> None:
        """Close the socket and end the thread."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()


class DaemonProcess:
    """One daemon with a root of its own.

    Args:
        config: Its configuration, TOML text; `{root}` stands for the root.
        environ: More of its environment.
        root: Where it lives, an empty directory; by default a new one.
    """

    def __init__(self, config: str = "", environ: Mapping[str, str] | None = None, root: Path | None = None) -> None:
        self.root = root or Path(tempfile.mkdtemp(prefix="ostler-"))
        (self.root / "etc" / "conf.d").mkdir(parents=True)
        self.configure(config)
        self.notices = NotifySocket(self.root / "notify")
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "NOTIFY_SOCKET": str(self.notices.path),
            **(environ or {}),
        }
        self.process: subprocess.Popen[str] | None = None
        self.plugins = self.root / "plugins"
        self._log = (self.root / "log").open("w+", encoding="utf-8")

    def configure(self, config: str, name: str = "ostler.toml") -> None:
        """Write the configuration (or a file of conf.d)."""
        (self.root / "etc" / name).write_text(config.replace("{root}", str(self.root)), encoding="utf-8")

    def install(self, name: str, source: str, *, distribution: str = "", version: str = "1.0") -> None:
        """Put a plugin where the daemon finds it, as pip would; `source` is the text of its module."""
        distribution = distribution or name
        module = f"{distribution}_module".replace("-", "_")
        info = self.plugins / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
        (self.plugins / f"{module}.py").write_text(source, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ostler]\n{name} = {module}\n")
        self.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(self.plugins)])

    def files(self) -> list[str]:
        """Return every file and folder below the root, but for the harness's own log."""
        found = (str(path.relative_to(self.root)) for path in self.root.rglob("*"))
        return sorted(name for name in found if name != "log" and "__pycache__" not in name)

    def start(self, *arguments: str, wait: bool = True, before: Sequence[str] = ()) -> DaemonProcess:
        """Start it, with words `before` the command, and wait until it says that it is ready."""
        heard = len(self.notices.received)  # an earlier run was ready too
        self.process = subprocess.Popen(
            [*before, OSTLER, "--root", str(self.root), "run", *arguments],
            env=self.environ, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if wait:
            self.wait_ready(heard)
        return self

    def wait_ready(self, after: int = 0) -> int:
        """Wait for READY=1, or fail with the log when the process ends before."""
        until = time.monotonic() + WAIT_TIMEOUT
        while time.monotonic() < until:
            try:
                return self.notices.ready(after, timeout=0.2)
            except AssertionError:
                if self.running.poll() is not None:
                    raise AssertionError(f"the daemon ended with {self.running.returncode}:\n{self.log}") from None
        raise AssertionError(f"the daemon is not ready; its notices {self.notices.received[-3:]}, its log:\n{self.log}")

    @property
    def running(self) -> subprocess.Popen[str]:
        """The process."""
        assert self.process is not None, "it was not started"
        return self.process

    @property
    def log(self) -> str:
        """All it has logged so far."""
        return (self.root / "log").read_text(encoding="utf-8")

    def wait_log(self, text: str, timeout: float = WAIT_TIMEOUT) -> str:
        """Wait until the log has a text."""
        return wait_for(lambda: self.log if text in self.log else "", f"{text!r} in the log", timeout, lambda: self.log)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.running.send_signal(number)

    def wait_end(self, timeout: float = WAIT_TIMEOUT) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self.running.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon does not end; its log:\n{self.log}") from None

    def stop(self) -> int:
        """Stop it as systemd would; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def command(
        self, *arguments: str, check: int | None = 0, before: Sequence[str] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `ostler …` against it, with words `before` it; a code other than `check` fails the test."""
        done = subprocess.run(
            [*before, OSTLER, "--root", str(self.root), *arguments],
            capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, check: int | None = 0, **options: Any) -> Any:
        """Run `ostler --json …` and return what it says."""
        text = self.command("--json", *arguments, check=check, **options).stdout
        check_documents(arguments, text)
        return json.loads(text)

    def give_to_nobody(self) -> None:
        """Make all below the root the property of a user who has nothing."""
        for path in [self.root, *self.root.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)

    def make_traversable(self) -> None:
        """Let other users reach what lies below the root."""
        self.root.chmod(0o755)

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method from this process, which is ten times as fast as the command."""
        return self.call_typed(None, topic, method, **arguments)

    def call_typed(self, kind: Any, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method as `ask` does, and return its result as a type."""
        with Client(root=str(self.root), timeout=WAIT_TIMEOUT) as client:
            return client.on(type=kind).call(topic, method, **arguments)

    def status(self) -> dict[str, Any]:
        """Return what `ostler status` shows."""
        status = self.call("ostler", "status")
        assert isinstance(status, dict)
        return status

    def close(self) -> None:
        """Kill what is left of it, and remove its root."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.notices.close()
        self._log.close()
        shutil.rmtree(self.root, ignore_errors=True)


def wait_for(
    condition: Callable[[], Any], what: str, timeout: float = WAIT_TIMEOUT, more: Callable[[], object] = lambda: ""
) -> Any:
    """Look again and again at another process until what is seen is true; return it."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if found := condition():
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"waited in vain for {what}\n{more()}")
