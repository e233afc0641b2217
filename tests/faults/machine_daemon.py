"""The machine of a test of faults: its disks and daemons, and what they have acknowledged."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from daemon_process import WAIT_TIMEOUT, DaemonProcess, wait_for
from machine_disks import BrokenDisk, SmallDisk, cannot_mount

from ostler import Client

HERE = Path(__file__).resolve().parent
RECORDS = """
[services.records]
manager = "machine_manager:RecordManager"
acts = "{acts}"
report_interval = "1s"
"""


class FaultyDaemon(DaemonProcess):
    """A daemon that keeps records, and what it has acknowledged."""

    def __init__(self, acts: Path, config: str = "", root: Path | None = None) -> None:
        super().__init__(RECORDS.replace("{acts}", str(acts)) + config, root=root)
        self._find_managers()
        self.acts = acts
        self.acknowledged: set[str] = set()

    def _find_managers(self) -> None:
        self.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), self.environ["PYTHONPATH"]])

    def install(self, name: str, source: str, **more: str) -> None:
        """Put a plugin where the daemon finds it, besides the managers of these tests."""
        super().install(name, source, **more)
        self._find_managers()

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def keep(self, key: str, size: int = 100) -> None:
        """Have a key kept; it counts as acknowledged when this returns."""
        self.call("records", "keep", key=key, size=size)
        self.acknowledged.add(key)

    def keep_until_refused(self, size: int = 20_000, most: int = 3000) -> Exception:
        """Have keys kept until one is refused; return the refusal."""
        with Client(root=str(self.root), timeout=WAIT_TIMEOUT) as client:
            for number in range(most):
                key = f"{len(self.acknowledged)}-{number}"
                try:
                    client.call("records", "keep", key=key, size=size)
                except Exception as error:
                    return error
                self.acknowledged.add(key)
        raise AssertionError(f"{most} keys were kept and none refused")

    def assert_nothing_lost(self) -> None:
        """Compare what is kept with what was acknowledged."""
        lost = self.acknowledged - set(self.call("records", "kept"))
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged keys are lost: {sorted(lost)[:5]}"

    def problems(self) -> str:
        """Return the problems of `ostler status`, one text."""
        return "\n".join(self.status()["not_well"])

    def wait_problem(self, pattern: str, timeout: float = WAIT_TIMEOUT) -> str:
        """Wait until a problem in the status fits a pattern."""
        found: str = wait_for(
            lambda: self.problems() if re.search(pattern, self.problems()) else "",
            f"a problem like {pattern!r}", timeout, lambda: f"{self.problems()}\n{self.log}",
        )  # fmt: skip
        return found

    def wait_well(self, timeout: float = WAIT_TIMEOUT) -> None:
        """Wait until the status has no problems."""
        wait_for(lambda: not self.problems(), "no problems", timeout, lambda: f"{self.problems()}\n{self.log}")

    def records(self) -> dict[str, Any]:
        """Return the status of the service."""
        (found,) = [each for each in self.status()["services"] if each["topic"] == "records"]
        assert isinstance(found, dict)
        return found

    def count_acts(self) -> dict[str, int]:
        """Return how often each act was done."""
        lines = self.acts.read_text("utf-8").splitlines() if self.acts.exists() else []
        return {line: lines.count(line) for line in lines}


class Machine:
    """Makes disks and daemons.

    Args:
        folder: The directory of the test.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._disks: list[SmallDisk] = []
        self._daemons: list[FaultyDaemon] = []

    def disk(self, path: Path, size: int = 16, *options: str) -> SmallDisk:
        """Mount a small ext4 of so many MiB; skip the test where that is not possible."""
        self._require_mounts()
        disk = SmallDisk(path, self.folder / f"{path.name}.image", size, *options)
        self._disks.append(disk)
        return disk

    def broken_disk(self, path: Path, size: int = 16) -> BrokenDisk:
        """Mount an ext4 whose device can fail."""
        self._require_mounts()
        disk = BrokenDisk(path, self.folder / f"{path.name}.store", size)
        self._disks.append(disk)
        return disk

    def _require_mounts(self) -> None:
        if why := cannot_mount(self.folder):
            pytest.skip(why)

    def daemon(self, config: str = "", root: Path | None = None) -> FaultyDaemon:
        """Return a daemon that is not started yet."""
        daemon = FaultyDaemon(self.folder / "acts", config, root)
        self._daemons.append(daemon)
        return daemon

    def close(self) -> None:
        """Kill the daemons, unmount the disks, and remove what is left; each whatever happens to the others."""
        with ExitStack() as undo:
            for remove in [*(daemon.close for daemon in self._daemons), *(disk.close for disk in self._disks)]:
                undo.callback(remove)
            for daemon in self._daemons:
                undo.callback(daemon.kill)
