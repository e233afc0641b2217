"""The installed ostler.service, brought back to a fresh installation for each test."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from installation import CONFIGURATION, UNITS
from systemd_container import SystemdContainer

NAME = "ostler.service"
_DROP_INS = "/etc/systemd/system/ostler.service.d"

TRIAL_CONFIGURATION = (
    CONFIGURATION
    + """
[services.trial]
manager = "trial:Trial"
"""
)

# A manager that does what a hung or busy one does, on request.
TRIAL = '''\
import time
from ostler import Context, Manager, exposed


class Trial(Manager):
    @exposed()
    async def block_loop(self, ctx: Context, seconds: float) -> None:
        """Do what an async method must not."""
        time.sleep(seconds)

    @exposed()
    def block_store(self, ctx: Context, seconds: float) -> None:
        """Keep the writer thread from its work."""
        self.store.write(lambda: time.sleep(seconds))

    @exposed()
    def work(self, ctx: Context, seconds: float) -> str:
        """Take a while."""
        self.log.info("work begins")
        time.sleep(seconds)
        return "done"
'''
TRIAL_DROP_IN = "[Service]\nEnvironment=PYTHONPATH=/opt/trial\n"
IMPATIENT = "[Service]\nWatchdogSec=2\nRestartSec=100ms\n"


class Unit:
    """The service under test.

    Args:
        machine: Where it is installed.
    """

    def __init__(self, machine: SystemdContainer) -> None:
        self.machine = machine
        self.began = ""

    def fresh(self) -> None:
        """Bring everything back to how `install` left it: stopped, no state, no drop-ins."""
        self.machine.run("systemctl", "kill", "-s", "KILL", NAME, check=False)
        self.machine.run("systemctl", "stop", NAME, check=False)
        self.machine.run("systemctl", "reset-failed", NAME, check=False)
        self.machine.run("rm", "-rf", _DROP_INS, "/var/lib/ostler", "/var/lib/private/ostler")
        self.machine.write("/opt/trial/trial.py", TRIAL)
        self.configure(CONFIGURATION)
        self.machine.systemctl("daemon-reload")
        self.began = self.machine.cursor()

    def configure(self, text: str) -> None:
        """Write /etc/ostler/ostler.toml."""
        self.machine.write("/etc/ostler/ostler.toml", text)

    def add(self, *drop_ins: str) -> None:
        """Add drop-ins: the text of one, or the name of one that is shipped, such as `attach.conf`."""
        for number, text in enumerate(drop_ins):
            shipped = UNITS / "drop-ins" / text if text.endswith(".conf") else None
            content = shipped.read_text() if shipped else text
            self.machine.write(f"{_DROP_INS}/{number}-{abs(hash(content))}.conf", content)
        self.machine.systemctl("daemon-reload")

    def start(self) -> None:
        """Start it; returns when it has said that it is ready."""
        self.machine.systemctl("start", NAME)

    def trial(self) -> None:
        """Start it with the trial manager beside the others, and with little patience."""
        self.configure(TRIAL_CONFIGURATION)
        self.add(TRIAL_DROP_IN, IMPATIENT)
        self.start()

    def show(self, name: str) -> str:
        """Return one property."""
        return self.machine.show(NAME, name)[name]

    @property
    def pid(self) -> int:
        """The daemon's process, as this machine numbers it."""
        return self.machine.main_pid(NAME)

    def ostler(self, *arguments: str, check: bool = True, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command inside."""
        return self.machine.run("ostler", *arguments, check=check, user=user)

    def call_in_background(self, topic: str, method: str, *arguments: str) -> subprocess.Popen[str]:
        """Call a method and do not wait for the answer."""
        argv = self.machine.enter("/usr/bin/ostler", "call", topic, method, *arguments)
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def status(self) -> dict[str, Any]:
        """Return `ostler status --json`."""
        return dict(json.loads(self.ostler("status", "--json").stdout))

    def await_entry(self, wanted: Any, *, after: str = "", timeout: float = 20) -> dict[str, Any]:
        """Wait for a journal entry since the test began, or after a cursor."""
        return self.machine.await_entry(NAME, wanted, after=after or self.began, timeout=timeout)

    def messages(self) -> str:
        """Return what the journal says since the test began."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.machine.journal(NAME, after=self.began))
