"""A short `make soak`, and what it says when a daemon has grown."""

from __future__ import annotations

import pytest
from crash_run import Violation
from growth import Size
from soak_run import MEMORY_MARGIN, Life, SmallDisk, Soak, growth_of, soak

MIB = 2**20
FIRST = Size(45 * MIB, 20, 10)


@pytest.mark.timeout(300)
def test_a_short_soak_with_every_kind_of_fault_keeps_all_promises() -> None:
    made = soak(Soak("12/soak", life=4.0, deaths=3), seconds=0.0)
    assert made.counts.keys() >= made.faults().keys()
    assert sum(made.counts[name] for name in made.ends()) == 3
    assert len(made.lives) == 1
    assert "over" not in str(made)
    assert str(made.run.figures) in str(made)


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (FIRST._replace(memory=FIRST.memory + MEMORY_MARGIN + 1), "bytes of memory in 60 s"),
        (FIRST._replace(files=60), "from 20 to 60 descriptors"),
        (FIRST._replace(threads=60), "from 10 to 60 threads"),
    ],
)
def test_a_daemon_that_has_grown_is_found(last, text) -> None:
    (found,) = growth_of(Life(60.0, FIRST, last))
    assert text in found
    assert not growth_of(Life(60.0, FIRST, FIRST))


def test_a_database_that_grows_without_end_is_found() -> None:
    made = Soak("growth/soak")
    try:
        made.database_sizes = [MIB * number for number in range(1, 21)]
        with pytest.raises(Violation, match="grown from 11,534,336 bytes at half time to 20,971,520"):
            made.check_database(600.0)
        made.check_database(60.0)  # its limits are not reached yet
        made.database_sizes = [MIB, 8 * MIB, 9 * MIB]
        made.check_database(600.0)
    finally:
        made.run.daemon.close()
        made.disk.close()


@pytest.mark.root
def test_a_small_disk_is_filled_and_relieved(tmp_path) -> None:
    disk = SmallDisk(tmp_path / "disk")
    if not disk.is_mounted:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "disk" / "more").write_bytes(b"x")
        disk.relieve()
        (tmp_path / "disk" / "more").write_bytes(b"x")
    finally:
        disk.close()
    assert not list((tmp_path / "disk").iterdir())
