"""Fixtures of the tests of faults of the machine; what they make is gone at the end of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from machine_daemon import Machine
from machine_shim import Shim


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return the machine of the test."""
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    """Return what is put between a daemon and libc; skip the test where it cannot be compiled."""
    made = Shim(tmp_path)
    if made.cannot:
        pytest.skip(made.cannot)
    yield made
    made.close()
