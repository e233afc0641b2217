import os
import subprocess
from pathlib import Path

import pytest

from ostler.clock import FakeClock, SystemClock, shared_boot_id


def test_two_daemons_on_one_kernel_have_the_boot_id_of_the_kernel(tmp_path: Path) -> None:
    assert shared_boot_id(SystemClock()) in ("", SystemClock().boot_id())
    file = tmp_path / "boot_id"
    file.touch()
    assert shared_boot_id(FakeClock(boot_id="b1"), file) == "b1"


def test_without_proc_nothing_is_known_of_the_boot(tmp_path: Path) -> None:
    assert shared_boot_id(FakeClock(), tmp_path / "gone") == ""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a file can be mounted over another by root alone")
def test_the_boot_id_of_a_container_is_not_compared_with_that_of_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "boot_id"
    file.touch()
    subprocess.run(["mount", "--bind", "/proc/version", str(file)], check=True)
    try:
        assert shared_boot_id(FakeClock(boot_id="b1"), file) == ""
    finally:
        subprocess.run(["umount", str(file)], check=True)
