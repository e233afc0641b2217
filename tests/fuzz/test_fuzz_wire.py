"""A million frames that no honest peer would send, the same ones each time; `make fuzz` goes on with others."""

import gc
import threading

import pytest
import run_fuzz as run
from defect_watch import descriptors, memory

SEED = 4
FRAMES = {"talk": 300_000, "server": 420_000, "client": 140_000, "link": 100_000, "hostile": 40_000}
MARGIN = 16 * 2**20
"""Bytes by which memory may differ after the first quarter has warmed everything up."""


def test_it_is_a_million():
    assert sum(FRAMES.values()) == 1_000_000
    assert FRAMES.keys() == run.TARGETS.keys()


@pytest.mark.failure_mode("RPC", "garbage frames, truncated and random (fuzzed)")
@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.timeout(180)
def test_a_million_frames_truncated_mutated_and_random(name, tmp_path):
    total = number = warm = 0
    before = (threading.active_count(), descriptors())
    while total < FRAMES[name]:
        total += run.run_round(name, SEED, number, folder=tmp_path / "build" / "fuzz")
        number += 1
        if not warm and total >= FRAMES[name] // 4:
            gc.collect()
            warm = memory()
    gc.collect()
    assert memory() - warm < MARGIN
    assert (threading.active_count(), descriptors()) == before
