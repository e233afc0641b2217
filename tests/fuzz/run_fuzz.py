"""`make fuzz`: sends what no honest peer would, until something gives way or the time is over.

Work is done in rounds. A round follows from target, seed and number alone; one that fails is written to a file with
all that was sent, and can be run again from the file or from its number.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from client_target import ClientTarget
from hostile_target import HostileTarget
from link_target import LinkTarget
from server_target import ServerTarget
from zmtp_target import ZmtpTarget

TARGETS: dict[str, Any] = {
    target.name: target for target in (ZmtpTarget, ServerTarget, ClientTarget, LinkTarget, HostileTarget)
}
FAILED = Path(__file__).parents[2] / "build" / "fuzz"


class Recorder:
    """Passes steps on and keeps them, so that those of a round that fails can be written down."""

    def __init__(self, steps: Iterator[Any]) -> None:
        self._steps = iter(steps)
        self.kept: list[Any] = []

    def __iter__(self) -> Recorder:
        return self

    def __next__(self) -> Any:
        step = next(self._steps)
        self.kept.append(step)
        return step


def run_round(name: str, seed: int, number: int, frames: int = 0, *, folder: Path = FAILED) -> int:
    """Run one round; return how many frames it had. One that fails is written down in `folder`.

    Raises:
        AssertionError: Something gave way; says how to have it again.
    """
    target = TARGETS[name]()
    steps = Recorder(target.steps(f"{seed}/{name}/{number}", frames or target.frames_a_round))
    try:
        return int(target.run(steps))
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}-{seed}-{number}.msgpack"
        file.write_bytes(msgspec.msgpack.encode([name, steps.kept]))
        last = repr(steps.kept[-1])[:300] if steps.kept else "nothing"
        again = f"make fuzz ARGS='--replay {file.relative_to(folder.parents[1])}'"
        whole = f"make fuzz ARGS='--target {name} --seed {seed} --round {number}'"
        raise AssertionError(
            f"{name} gave way in round {number} of seed {seed}, at step {len(steps.kept)}, {last}: "
            f"{type(error).__name__}: {error}\n  again: {again}\n  or:    {whole}"
        ) from error


def replay(file: Path) -> int:
    """Run what is in a file once more; return how many frames there were."""
    name, steps = msgspec.msgpack.decode(file.read_bytes())
    return int(TARGETS[name]().run(iter(tuple(step) for step in steps)))


def main(arguments: list[str] | None = None) -> int:
    """Fuzz; return the exit code."""
    chosen = _parser().parse_args(arguments)
    if chosen.replay is not None:
        print(f"{replay(chosen.replay)} frames, and nothing gave way")
        return 0
    seed = random.SystemRandom().randrange(10**9) if chosen.seed is None else chosen.seed
    names = [chosen.target] if chosen.target else list(TARGETS)
    until, total, began, said = time.monotonic() + 60 * chosen.minutes, 0, time.monotonic(), 0.0
    print(f"seed {seed}, {', '.join(names)}, {chosen.minutes:g} minutes", flush=True)
    rounds = [chosen.round] if chosen.round is not None else itertools.count()
    for number in rounds:
        for name in names:
            try:
                total += run_round(name, seed, number)
            except AssertionError as error:
                traceback.print_exc()
                print(f"\n{error}", file=sys.stderr)
                return 1
            now = time.monotonic()
            if now - said > 5:
                said = now
                print(f"{now - began:6.0f} s  round {number:4}  {total:12,} frames", flush=True)
        if time.monotonic() >= until:
            break
    print(f"{total:,} frames in {time.monotonic() - began:.0f} s, and nothing gave way")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; 10 by default")
    parser.add_argument("--seed", type=int, help="a number; another one each time by default")
    parser.add_argument("--round", type=int, help="only this round")
    parser.add_argument("--target", choices=list(TARGETS), help="only this target")
    parser.add_argument("--replay", type=Path, help="a file that a failed run has written")
    return parser


if __name__ == "__main__":
    sys.exit(main())
