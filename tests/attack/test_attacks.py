"""Every attack in its strongest form, short: honest users are served as promised in docs/reliability.md.

`make attack` runs them longer, all of them, and shows the figures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from attack_run import QUICK, row, selection
from attack_table import ATTACKS, OPEN
from measure import misses, run_attack
from target import Daemon, start_target

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users"),
]
CASES = [
    pytest.param(
        name, who, id=f"{who}: {name}",
        marks=[pytest.mark.xfail(reason=OPEN[name], strict=False)] if name in OPEN else [],
    )
    for name, who in selection([], quick=True)
]  # fmt: skip


@pytest.fixture(scope="module")
def bystander() -> Iterator[Daemon]:
    daemon = start_target()
    yield daemon
    daemon.close()


@pytest.mark.parametrize(("name", "who"), CASES)
def test_honest_users_are_served_while(name: str, who: str, bystander: Daemon) -> None:
    figures = run_attack(name, who, QUICK, bystander)
    missed = misses(figures, ATTACKS[name])
    assert not missed, f"{missed}\n{row(figures)}\n{figures.log[-2000:]}"
