"""Descriptors 0 to 2 that are closed, or lead nowhere."""

import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import os, sys
from ostler.cli.descriptors import open_standard_descriptors
open_standard_descriptors()
seen = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
print("to stdout")
print("to stderr", file=sys.stderr)
sys.stdin.read()
result = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
assert result > 2, result
os.write(result, " ".join(seen).encode())
"""


@pytest.mark.failure_mode("Machine", "output that is closed, full or not read")
@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2], [1, 2], []])
def test_descriptors_closed_at_the_start_do_not_lead_to_what_is_opened_next(tmp_path, closed):
    shut = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    seen = tmp_path / "seen"
    subprocess.run(
        ["bash", "-c", f'exec "$@" {shut}', "-", sys.executable, "-c", LOOK, str(seen)],
        check=True, timeout=60, stdin=subprocess.PIPE if closed else subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    found = seen.read_text().split()
    assert [found[number] for number in closed] == ["/dev/null"] * len(closed)


@pytest.mark.parametrize("output", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_bad_configuration_ends_with_its_exit_code_wherever_the_output_goes(tmp_path, output):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "ostler.toml").write_text("[daemon")
    ostler = str(Path(sys.executable).parent / "ostler")
    words = ["bash", "-c", f'exec "$@" {output}', "-", ostler, "--root", str(tmp_path), "run"]
    assert subprocess.run(words, check=False, timeout=60).returncode == 78
