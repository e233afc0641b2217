from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.clock import FakeClock
from ostler.store import Store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ostler.db"


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Iterator[Store]:
    opened = Store.open(path, clock=clock, busy_timeout=0.05)
    yield opened
    assert opened.close() == ""
