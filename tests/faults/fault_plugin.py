"""A daemon that loads the plugin of fault points, and is killed and started as tests want it."""

from __future__ import annotations

import os
from pathlib import Path

from daemon_process import HERE as FUNCTIONAL
from daemon_process import DaemonProcess

HERE = Path(__file__).resolve().parent


class FaultyDaemon(DaemonProcess):
    """A daemon that can be told at which named point it is to die.

    Args:
        config: Its configuration; see `DaemonProcess`.
    """

    def __init__(self, config: str) -> None:
        super().__init__(config)
        self.install("faults", (HERE / "fault_points.py").read_text(encoding="utf-8"))
        self.environ["PYTHONPATH"] = os.pathsep.join(map(str, (HERE, FUNCTIONAL, self.plugins)))
        self.fault_point = ""
        self.heard = 0
        """How many notices earlier runs have sent."""
        self.armed = self.root / "fault-armed"
        self._hit = self.root / "fault-hit"

    def start(self, *arguments: str, wait: bool = True, fault: tuple[str, int] | None = None) -> FaultyDaemon:  # type: ignore[override]
        """Start it.

        Args:
            arguments: See `DaemonProcess.start`.
            wait: Whether to wait until it is ready.
            fault: The named point at which it dies, and at which pass, once `armed` exists; None for none.
        """
        self.fault_point, passes = fault or ("", 0)
        self.environ["OSTLER_FAULT_POINT"] = self.fault_point
        self.environ["OSTLER_FAULT_PASS"] = str(passes)
        self.environ["OSTLER_FAULT_ARMED"] = str(self.armed)
        self.environ["OSTLER_FAULT_HIT"] = str(self._hit)
        self._hit.unlink(missing_ok=True)
        self.heard = len(self.notices.received)
        super().start(*arguments, wait=wait)
        return self

    def kill(self) -> None:
        """Kill it, unless it has died by itself."""
        if self.running.poll() is None:
            self.running.kill()
        self.running.wait(20)

    @property
    def died_at(self) -> str:
        """The point at which it died; empty when it did not die at one."""
        return self._hit.read_text(encoding="utf-8") if self._hit.exists() else ""
