"""200 kills at random moments under a mixed load; see docs/reliability.md. `make crash` makes as many as one likes."""

from __future__ import annotations

import re

import pytest
from crash_run import KEPT, CrashRun, Violation, crash, main
from fault_points import SABOTAGE
from history import DONE, Journal

SEED = 12
"""The same in each run, so that a change is the cause of what is new; `make crash` takes a new one each time."""
KILLS = 200

EXPECTED = {
    "acknowledge too early": "the value .* is [0-9]+: [0-9]+ was acknowledged|done by half",
    "forget steps": "was done [0-9]+ times, [0-9]+ of them when",
    "run twice": "was done 2 times|can only be",
    "leave files": "was deleted, and there is a record|has no record",
}
"""What is said of each way in which the daemon is broken."""
MAX_RUNS = 5
"""Runs of a daemon that is broken on purpose, each with up to 40 kills."""


@pytest.mark.timeout(900)
@pytest.mark.failure_mode("State", "nothing acknowledged is lost by `kill -9`")
def test_200_kills_lose_nothing_and_repeat_nothing() -> None:
    figures = crash(KILLS, SEED, daemons=2)
    assert figures.kills == KILLS
    assert figures.settled >= KILLS // 8
    # The load was one: operations were accepted, some were cut off, and there were volumes.
    assert figures.operations > KILLS
    assert figures.interrupted > 0
    assert figures.volumes > KILLS // 4


@pytest.mark.timeout(180)
@pytest.mark.failure_mode("State", "nothing acknowledged is lost by `kill -9`")
def test_kills_at_named_points_under_the_load_lose_nothing() -> None:
    points = [
        "store.before-commit",
        "store.after-commit",
        "operation.step-done",
        "volume.created",
        "journal.after-append",
    ]
    figures = crash(16, SEED, daemons=1, points=points)
    assert figures.at_points > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_a_daemon_that_is_broken_on_purpose_is_found_out(sabotage) -> None:
    """It is found out by what was expected of it. What else it leads to ends a run, and another one is made then.

    A deletion whose step was forgotten is repeated, finds nothing, and is refused: what is gone counts as lost.
    """
    found = [crash_until_violation(f"{sabotage}/0", sabotage)]
    while not re.search(EXPECTED[sabotage], found[-1]) and len(found) < MAX_RUNS:
        found.append(crash_until_violation(f"{sabotage}/{len(found)}", sabotage))
    assert re.search(EXPECTED[sabotage], found[-1]), found


def crash_until_violation(seed: str, sabotage: str) -> str:
    """Kill a daemon that is broken on purpose until a promise is; return what is said of it."""
    run = CrashRun(seed)
    run.daemon.environ["OSTLER_SABOTAGE"] = sabotage
    with pytest.raises(Violation) as raised, run:
        run.run(40)
    return str(raised.value)


def test_a_broken_promise_is_reported_with_its_seed_and_what_was_kept() -> None:
    run = CrashRun("broken/0")

    def lose() -> None:
        with run:
            run.daemon.start()
            journal = Journal(run.daemon.root / "history" / "forged.jsonl")
            journal.write("set", "k", DONE, value=1)  # as if the daemon had acknowledged it
            journal.close()
            run.daemon.kill()
            run.check_killed()

    with pytest.raises(Violation, match="of seed broken/0, 1 promises were broken") as raised:
        lose()
    assert "the value k is 0" in str(raised.value)
    assert str(KEPT / "broken-0") in raised.value.__notes__[0]
    assert {"log", "history", "state"} <= {path.name for path in (KEPT / "broken-0").iterdir()}
    assert not run.daemon.root.exists()


def test_what_is_done_follows_from_the_seed() -> None:
    runs = [CrashRun(seed) for seed in ("1/0", "1/0", "2/0")]
    try:
        first, again, other = ([run.rng.random() for _ in range(5)] for run in runs)
    finally:
        for run in runs:
            run.daemon.close()
    assert first == again != other


def test_make_crash_says_what_came_of_it(capsys) -> None:
    assert main(["--kills", "2", "--seed", "5", "--daemons", "1"]) == 0
    out = capsys.readouterr().out
    assert "seed 5" in out
    assert "2 kills" in out
    assert "Nothing was lost" in out
