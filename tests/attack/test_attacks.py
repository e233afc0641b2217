"""Every attack in its strongest form, short: honest users are served as promised in docs/reliability.md.

`make attack` runs them longer, all of them, and shows the figures.
"""

from __future__ import annotations

import os

import pytest
from attack_run import QUICK, row, selection
from attack_table import ATTACKS
from measure import baseline, misses, run_attack
from target import UIDS

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users"),
]
CASES = [pytest.param(name, who, id=f"{who}: {name}") for name, who in selection([], quick=True)]


@pytest.mark.parametrize(("name", "who"), CASES)
def test_honest_users_are_served_while(name: str, who: str) -> None:
    figures = run_attack(name, who, QUICK)
    attack = ATTACKS[name]
    missed = misses(figures, attack, 0.0)
    if missed:
        # What a busy machine makes of the same calls, now and without an attack, is not the daemon's.
        missed = misses(figures, attack, baseline(len(UIDS[who]), 2.0))
    assert not missed, f"{missed}\n{row(figures)}"
