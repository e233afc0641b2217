"""Runs one attack against one daemon, and says what was promised and what was seen."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attack_table import ATTACKS, Attack
from attacked_daemon import (
    ADMIN_UID,
    HERE,
    NO_SIZE,
    OPERATOR_UID,
    UIDS,
    VIEWER_UID,
    DaemonProcess,
    DaemonWatch,
    ProcessSize,
    inside,
    repeated_lines,
    size_of,
    start_target,
)

ADMIN_P99, VIEWER_P99, SERVICE_P99 = 0.100, 0.250, 2.0
"""Seconds: the promise of issue 8 for `echo` and `status`; a `def` method waits for a thread as well."""
PING_GAP, BEAT_GAP = 2.5, 2.0
"""Seconds between two watchdog pings (sent every second, due in 4) and two heartbeats (sent every half second)."""
BACK_WITHIN, FREED_WITHIN = 1.0, 5.0
MEMORY_KEPT, DESCRIPTORS_KEPT, THREADS_KEPT = 60.0, 24, 24
"""MiB, descriptors and threads that the daemon may have more of afterwards; pools of threads and of readers of the
database (three files each) keep what they have."""
LOGS = HERE.parents[1] / "build" / "attack"
_CALM = 0.5
_OWN_CALLS, _OWN_HELD = 6, 512
"""Requests under way and KiB held that the honest users' own calls may explain."""


@dataclass
class Figures:
    """What was seen of one attack; times in seconds, memory in MiB."""

    name: str
    admin: list[float] = field(default_factory=list)
    viewer: list[float] = field(default_factory=list)
    service: list[float] = field(default_factory=list)
    bystander: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    by_kind: dict[str, float] = field(default_factory=dict)
    ping_gap: float = 0.0
    beat_gap: float = 0.0
    before: ProcessSize = NO_SIZE
    peak: ProcessSize = NO_SIZE
    after: ProcessSize = NO_SIZE
    back: float = 0.0
    not_back: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    attackers: list[dict[str, int]] = field(default_factory=list)
    ended: int | None = None
    log: str = ""


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value below which this part of them is; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


class ScriptProcess:
    """A process of ours that runs a script of this folder, starts to act when told, and says what came of it."""

    def __init__(self, name: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / name), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_up(self) -> ScriptProcess:
        """Wait until it is ready to act."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n", "it did not start; see its stderr"
        return self

    def send_line(self, line: str) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def result(self, patience: float) -> str:
        """End its input, wait for its end, and return what it wrote."""
        try:
            return self.process.communicate(timeout=patience)[0]
        except subprocess.TimeoutExpired:
            return ""
        finally:
            self.kill()

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def start_attackers(attack: str, who: str, daemon: DaemonProcess) -> list[ScriptProcess]:
    """Start the attackers of an attack; they wait for a word."""
    started = [ScriptProcess("attackers.py", uid, daemon.root / "run", attack) for uid in UIDS[who]]
    return [each.wait_up() for each in started]


def run_attack(name: str, who: str, seconds: float, bystander: DaemonProcess) -> Figures:
    """Attack a new daemon for so many seconds; return what was seen.

    Args:
        name: The attack.
        who: Who attacks.
        seconds: How long.
        bystander: A daemon that is not attacked, and asked all the same: what its callers wait for, they wait for
            because of the machine.
    """
    daemon = start_target()
    scripts: list[ScriptProcess] = []
    watch = DaemonWatch(daemon)
    try:
        return _attacked(daemon, bystander, watch, scripts, ATTACKS[name], who, seconds)
    finally:
        for script in scripts:
            script.kill()
        watch.stop()
        daemon.close()


def _attacked(
    daemon: DaemonProcess,
    bystander: DaemonProcess,
    watch: DaemonWatch,
    scripts: list[ScriptProcess],
    attack: Attack,
    who: str,
    seconds: float,
) -> Figures:
    admin, viewer, beside = (
        ScriptProcess("honest_client.py", uid, asked.root, role)
        for uid, asked, role in (
            (ADMIN_UID, daemon, "admin"),
            (VIEWER_UID, daemon, "viewer"),
            (ADMIN_UID, bystander, "bystander"),
        )
    )
    scripts += [admin, viewer, beside]
    for each in scripts:
        each.wait_up()
    if attack.events[0]:
        scripts.append(ScriptProcess("publish_events.py", OPERATOR_UID, daemon.root, *attack.events).wait_up())
    hostile = start_attackers(attack.name, who, daemon)
    scripts += hostile
    watch.start()
    time.sleep(_CALM)
    figures = Figures(f"{who}: {attack.name}", before=size_of(daemon.running.pid))
    held_before = int(inside(daemon)["held"])
    log_before = len(daemon.log)
    began = time.monotonic()
    for each in hostile:
        each.send_line(str(attack.lasts or seconds))
    time.sleep(seconds)
    figures.attackers = [json.loads(text) for each in hostile if (text := each.result(1.0))]
    ended = time.monotonic()
    _wait_until_back(daemon, figures, held_before, ended)
    watch.stop()
    now = time.monotonic()
    figures.ping_gap = watch.longest_gap(watch.pings, began, now)
    figures.beat_gap = watch.longest_gap(watch.beats, began, now)
    figures.peak = watch.peak
    for role, probe in (("admin", admin), ("viewer", viewer), ("bystander", beside)):
        _take_samples(figures, role, probe.result(60), (began, ended), calls_may_fail=attack.service_busy)
    figures.log = daemon.log[log_before:]
    figures.lines = repeated_lines(figures.log, len(UIDS[who]))
    figures.ended = daemon.running.poll()
    return figures


def keep_log(figures: Figures) -> Path:
    """Write what the daemon logged to a file of its own and return that."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / (figures.name.replace(": ", "-").replace(" ", "-") + ".log")
    path.write_text(figures.log, encoding="utf-8")
    return path


def _wait_until_back(daemon: DaemonProcess, figures: Figures, held_before: int, ended: float) -> None:
    """Wait until all is as before the attack, and then until the memory has been given back; measure both."""
    until = ended + FREED_WITHIN
    while time.monotonic() < until and daemon.running.poll() is None:
        figures.not_back = _difference(daemon, figures.before, held_before)
        figures.back = time.monotonic() - ended
        if not figures.not_back:
            break
        time.sleep(0.05)
    while daemon.running.poll() is None:
        figures.after = size_of(daemon.running.pid)
        if figures.after.memory - figures.before.memory <= MEMORY_KEPT or time.monotonic() >= until:
            return
        time.sleep(0.1)


def _difference(daemon: DaemonProcess, before: ProcessSize, held_before: int) -> str:
    """Return what is not yet as it was before; empty when all is."""
    found, now = inside(daemon), size_of(daemon.running.pid)
    more = {
        "in flight": found["in_flight"] - _OWN_CALLS,
        "KiB held": (found["held"] - held_before) // 1024 - _OWN_HELD,
        "descriptors": now.descriptors - before.descriptors - DESCRIPTORS_KEPT,
        "threads": now.threads - before.threads - THREADS_KEPT,
    }
    return ", ".join(f"{count} {what}" for what, count in more.items() if count > 0)


def _take_samples(figures: Figures, role: str, text: str, span: tuple[float, float], *, calls_may_fail: bool) -> None:
    if not text:
        figures.errors.append(f"the {role}'s probe did not end")
        return
    by_kind: dict[str, list[float]] = {}
    for kind, at, took, error in json.loads(text):
        if not span[0] <= at < span[1]:
            continue
        if error and not (kind == "service" and calls_may_fail and error.startswith("Busy")):
            figures.errors.append(f"{role} {kind}: {error}")
        by_kind.setdefault(kind, []).append(took)
    for kind, all_took in by_kind.items():
        figures.by_kind[f"{role} {kind}"] = quantile(all_took, 0.99)
        goes_to = figures.service if kind == "service" else getattr(figures, role)
        goes_to.extend(all_took)


def misses(figures: Figures, attack: Attack, slack: float = 1.0) -> list[str]:
    """Return what was promised and not kept, beside what the machine itself took: see `run_attack`.

    Args:
        figures: What was measured.
        attack: What was done.
        slack: How many times as long as promised things may take.
    """
    found = []
    allowance = quantile(figures.bystander, 0.99)
    for what, seen, limit in (
        ("administrator's p99", quantile(figures.admin, 0.99), ADMIN_P99 + allowance),
        ("viewer's p99", quantile(figures.viewer, 0.99), VIEWER_P99 + allowance),
        ("p99 of the service's method", quantile(figures.service, 0.99), SERVICE_P99 + allowance),
        ("pause between watchdog pings", figures.ping_gap, PING_GAP),
        ("pause between heartbeats", figures.beat_gap, BEAT_GAP),
        ("until all was as before", figures.back, BACK_WITHIN),
    ):
        if seen > limit * slack:
            found.append(f"{what} {seen:.3f} s, above {limit * slack:.3f} s")
    for what, size, limit in (
        ("peak", figures.peak.memory - figures.before.memory, attack.peak),
        ("kept afterwards", figures.after.memory - figures.before.memory, MEMORY_KEPT),
    ):
        if size > limit * min(slack, 2.0):
            found.append(f"memory, {what}: {size:.0f} MiB more, above {limit:.0f}")
    if figures.errors:
        found.append(f"{len(figures.errors)} errors, such as {figures.errors[0]}")
    if figures.not_back:
        found.append(f"not as before: {figures.not_back}")
    if figures.lines:
        kind, count = max(figures.lines.items(), key=lambda item: item[1])
        found.append(f"{count} log lines of one kind: {kind}")
    if figures.ended is not None:
        found.append(f"the daemon ended with {figures.ended}")
    if not figures.admin or not figures.viewer:
        found.append("nothing was measured")
    return found
