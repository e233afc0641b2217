"""`make attack`: attacks a daemon in every way that is known, as other users, and measures how honest users fare.

    make attack ARGS="--only streams --seconds 10"

Needs root, to be other users. Exits with 1 when a promise was not kept; `docs/reliability.md` has the promises.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

import tcp_attacks
from attack_table import ATTACKS, VIEWER, VIEWERS
from attacked_daemon import DaemonProcess, start_target
from measure_attack import Figures, keep_log, misses, quantile, run_attack

SECONDS, QUICK = 6.0, 2.0
_HEAD = (f"{'attack':56}{'admin p50':>10}{'p99':>7}{'max':>7}{'viewer p99':>12}{'service':>9}{'beside':>8}"
         f"{'MiB before':>12}{'peak':>6}{'after':>6}{'back s':>8}")  # fmt: skip


def selection(only: list[str], *, quick: bool) -> Iterator[tuple[str, str]]:
    """Return the attacks to run, by name and by who; in a hurry each in its strongest form.

    Args:
        only: Parts of names, such as `streams` or `nobody: `; all when there are none.
        quick: Whether one viewer's attack is left out where three viewers do the same.
    """
    for name, attack in ATTACKS.items():
        for who in attack.by:
            if quick and who == VIEWER and VIEWERS in attack.by:
                continue
            if not only or any(part in f"{who}: {name}" for part in only):
                yield name, who


def row(figures: Figures) -> str:
    """Return the figures of one attack as a line: milliseconds and MiB."""
    admin = [quantile(figures.admin, part) * 1000 for part in (0.5, 0.99, 1.0)]
    return (
        f"{figures.name:56}{admin[0]:10.1f}{admin[1]:7.0f}{admin[2]:7.0f}{quantile(figures.viewer, 0.99) * 1000:12.0f}"
        f"{quantile(figures.service, 0.99) * 1000:9.0f}{quantile(figures.bystander, 0.99) * 1000:8.0f}"
        f"{figures.before.memory:12.0f}{figures.peak.memory:6.0f}"
        f"{figures.after.memory:6.0f}{figures.back:8.2f}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Attack, and say what came of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="attacks with this in their name")
    parser.add_argument("--seconds", type=float, help=f"how long each takes; {SECONDS:g} by default")
    parser.add_argument("--quick", action="store_true", help="each in its strongest form only, and short")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--verbose", action="store_true", help="show what the attackers got, and each kind of call")
    options = parser.parse_args(arguments)
    chosen = list(selection(options.only, quick=options.quick))
    ports = tcp_attacks.selection(options.only, quick=options.quick)
    if options.list:
        print("\n".join([f"{who}: {name}" for name, who in chosen] + [f"port, {who}: {name}" for name, who in ports]))
        return 0
    if os.geteuid() != 0:
        print("make attack needs root, to be other users", file=sys.stderr)
        return 2
    seconds = options.seconds or (QUICK if options.quick else SECONDS)
    missed = attack_all(chosen, seconds, verbose=options.verbose) if chosen else 0
    return max(missed, attack_ports(ports, seconds) if ports else 0)


def attack_ports(chosen: list[tuple[str, str]], seconds: float) -> int:
    """Run these attacks on the ports of a daemon and print what was seen; return the exit code."""
    held = 0
    with tcp_attacks.AttackedPort() as port:
        for name, who in chosen:
            figures = port.attack(name, who, seconds)
            missed = figures.misses()
            held += not missed
            print(figures, f"MISSED: {', '.join(missed)}" if missed else "ok", flush=True)
    print(f"{held} of {len(chosen)} held")
    return int(held < len(chosen))


def attack_all(chosen: list[tuple[str, str]], seconds: float, *, verbose: bool) -> int:
    """Run these attacks and print a table; return the exit code."""
    print(_HEAD, flush=True)
    bystander = start_target()
    try:
        held = sum([_attack(name, who, seconds, bystander, verbose=verbose) for name, who in chosen])
    finally:
        bystander.close()
    print(f"{held} of {len(chosen)} held")
    return int(held < len(chosen))


def _attack(name: str, who: str, seconds: float, bystander: DaemonProcess, *, verbose: bool) -> bool:
    figures = run_attack(name, who, seconds, bystander)
    missed = misses(figures, ATTACKS[name])
    print(row(figures), "MISSED" if missed else "ok", flush=True)
    for each in (*missed, *([f"what it logged: {keep_log(figures)}"] if missed else [])):
        print("    ", each, flush=True)
    if verbose:
        print("    ", {kind: round(took, 4) for kind, took in figures.by_kind.items()}, figures.attackers,
              f"pings {figures.ping_gap:.2f} s, heartbeats {figures.beat_gap:.2f} s", flush=True)  # fmt: skip
    return not missed


if __name__ == "__main__":
    sys.exit(main())
