"""The daemon under test: a child process with a folder of its own, and what the kernel says of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from rows import median

HERE = Path(__file__).parent
IMPORTS = "import asyncio, zmq, peewee, pluggy, msgspec, pydantic"
"""What any daemon on these libraries has to import: the yardstick of start-up and memory."""
_WAIT_TIMEOUT = 60.0

BUNDLED = """
[daemon]
host = "bench"

[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"

[services.scheduler]
manager = "scheduler"
"""

ECHO = """
[services.{topic}]
manager = "bench_managers:EchoManager"
"""


def command() -> list[str]:
    """Return the `ostler` of this interpreter, as an operator would start it."""
    beside = Path(sys.executable).with_name("ostler")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "ostler"]


def environment(**more: str) -> dict[str, str]:
    """Return a child's environment: ours without what would change a daemon, and with the managers of the bench."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("OSTLER_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "PYTHONDONTWRITE"))
    }
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    return {**kept, **more}


class DaemonUnderTest:
    """One daemon below `root`; `start` and `stop` may be called again and again."""

    def __init__(self, root: Path, config: str) -> None:
        self.root = root
        self.log = root / "daemon.log"
        self.notify = root / "notify.sock"
        (root / "etc").mkdir(parents=True)
        (root / "volumes").mkdir()
        (root / "etc" / "ostler.toml").write_text(config.format(root=root), encoding="utf-8")
        self._pid: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self._pid is not None
        return self._pid.pid

    def start(self) -> float:
        """Start the daemon; return the seconds from exec to READY=1."""
        self.notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self.log.open("ab") as log:
            notified.bind(str(self.notify))
            notified.settimeout(0.5)
            began = time.perf_counter()
            self._pid = subprocess.Popen(
                [*command(), "--root", str(self.root), "run"],
                env=environment(NOTIFY_SOCKET=str(self.notify)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            while time.perf_counter() - began < _WAIT_TIMEOUT:
                try:
                    said = notified.recv(65536)
                except TimeoutError:
                    if self._pid.poll() is not None:
                        break
                    continue
                if b"READY=1" in said.split(b"\n"):
                    return time.perf_counter() - began
        self.stop()
        raise RuntimeError(f"the daemon did not get ready; it said:\n{self.read_output()}")

    def read_output(self) -> str:
        """Return the end of the daemon's log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:] if self.log.exists() else ""

    def stop(self) -> None:
        """Stop the daemon; harmless when it does not run."""
        process, self._pid = self._pid, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """Stop the daemon and remove its folder."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB (of 1,000,000 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel does not say VmRSS")


def cpu_seconds(pid: int) -> float:
    """Return the seconds that the threads of a process have run; in nanoseconds, where `stat` counts ticks of 10 ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
            continue
    return total / 1e9


def cpu_share(pid: int, seconds: float, windows: int = 5) -> float:
    """Watch a process for so long; return the percentage of a core it used, the median of some windows."""
    found = []
    for _ in range(windows):
        before, began = cpu_seconds(pid), time.perf_counter()
        time.sleep(seconds / windows)
        found.append(100 * (cpu_seconds(pid) - before) / (time.perf_counter() - began))
    return median(found)


def seconds_of(arguments: list[str], **options: object) -> float:
    """Run a command to its end; return the seconds from exec to exit.

    Raises:
        RuntimeError: It failed.
    """
    began = time.perf_counter()
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False, **options)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return took
