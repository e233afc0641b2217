"""Every attack in its strongest form, short: honest users are served, and all is as before afterwards.

`make attack` runs them longer, all of them, and judges by the times that docs/reliability.md promises. A test that is
run beside others on any machine is no place for that: here it counts that nobody waits for many times as long, that
there are no errors, and that memory, heartbeats and the log keep their bounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import tcp_attacks
from attack_table import ATTACKS
from attacked_daemon import DaemonProcess, start_target
from measure_attack import misses, run_attack
from run_attacks import QUICK, row, selection

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users"),
]
SLACK = 10.0
CASES = [pytest.param(name, who, id=f"{who}: {name}") for name, who in selection([], quick=True)]


@pytest.fixture(scope="module")
def bystander() -> Iterator[DaemonProcess]:
    daemon = start_target()
    yield daemon
    daemon.close()


@pytest.mark.parametrize(("name", "who"), CASES)
def test_honest_users_are_served_while(name: str, who: str, bystander: DaemonProcess) -> None:
    figures = run_attack(name, who, QUICK, bystander)
    missed = misses(figures, ATTACKS[name], SLACK)
    assert not missed, f"{missed}\n{row(figures)}\n{figures.log[-2000:]}"


@pytest.fixture(scope="module")
def port() -> Iterator[tcp_attacks.AttackedPort]:
    with tcp_attacks.AttackedPort() as attacked:
        yield attacked


@pytest.mark.parametrize(("name", "who"), tcp_attacks.selection([], quick=True))
def test_honest_users_of_a_port_are_served_while(name: str, who: str, port: tcp_attacks.AttackedPort) -> None:
    figures = port.attack(name, who, QUICK)
    assert not figures.misses(SLACK), figures
