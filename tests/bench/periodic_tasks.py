"""Ten thousand periodic tasks at one run a minute each: how late they begin, and what they cost.

What they cost is compared with a bare heap and timer that run the same functions, in turns.
"""

from __future__ import annotations

import time
from pathlib import Path

from bare_periodic import bare_loop
from bench_many_tasks_manager import SPACING, TASKS
from measured_daemon import BUNDLED, DaemonUnderTest, cpu_share
from rows import FigureRow, median, percentile

from ostler import Client

CONFIG = (
    BUNDLED
    + """
[services.ten]
manager = "bench_many_tasks_manager:PeriodicManager"
"""
)
_SETTLE = 3.0


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Ask when each task is due, wait, and see when each began; in turns with the yardstick."""
    seconds = 5.0 if quick else 20.0
    daemon = DaemonUnderTest(folder / "periodic", CONFIG)
    spread(daemon)
    with daemon, Client(root=str(daemon.root)) as client:
        time.sleep(_SETTLE)
        due = next_runs(client)
        time.sleep(1.0)  # listing them all is work that no task should be blamed for
        opened = time.time()
        shares = [cpu_share(daemon.pid, seconds / 2)]
        bare = [_bare_share(seconds / 2)]
        shares.append(cpu_share(daemon.pid, seconds / 2))
        bare.append(_bare_share(seconds / 2))
        closed = time.time()
        time.sleep(0.5)
        begun = dict(reversed(client.on(type=list[tuple[int, float]]).call("ten", "started")))
    late = [
        abs(begun.get(number, closed + 0.5) - moment)
        for number, moment in due.items()
        if opened < moment <= closed - 0.5
    ]
    expected = TASKS / SPACING * (closed - opened)
    if len(late) < expected / 4:
        raise RuntimeError(f"only {len(late)} of {TASKS} tasks were due in time, about {expected:.0f} expected")
    return [
        FigureRow(
            name="10,000 periodic tasks, start off due, p99", value=1000 * percentile(late, 0.99), unit="ms", limit=20
        ),
        FigureRow(
            name="10,000 periodic tasks, CPU", value=median(shares), unit="% of a core", baseline=median(bare),
            limit=3, relative=True,
        ),
    ]  # fmt: skip


def _bare_share(seconds: float) -> float:
    with bare_loop() as pid:
        time.sleep(_SETTLE / 2)
        return cpu_share(pid, seconds)


def spread(daemon: DaemonUnderTest) -> None:
    """Have the tasks go on where an earlier daemon left them: spread over the minute, not all due at one moment."""
    from ostler.store import PeriodicRecords, PeriodicRun, Store

    daemon.start()  # makes the database
    daemon.stop()
    store = Store.open(daemon.root / "state" / "ostler.db")
    now = time.time()
    PeriodicRecords(store, "bench").save(
        [PeriodicRun("ten", f"task{number}", 1, 0, now - SPACING * number / TASKS) for number in range(TASKS)]
    )
    store.close()


def next_runs(client: Client) -> dict[int, float]:
    """Return when each task is due next, as the daemon says."""
    return {
        int(status["task"].removeprefix("task")): status["next_run"]
        for status in client.call("ostler", "periodic_list")
        if status["service"] == "ten"
    }
