"""Failure modes on real, small file systems; they need root for the mounts."""

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small file system"),
]

FULL = """
import os, sys
from pathlib import Path
from ostler.errors import StoreUnavailable
from ostler.store import Store
root = Path(sys.argv[1])
store = Store.open(root / "state" / "ostler.db")
kv = store.kv("x")
ballast = root / "ballast"
kept = 0
with ballast.open("wb") as file:
    try:
        while True:
            os.write(file.fileno(), b"x" * 4096)
    except OSError:
        pass
try:
    for number in range(100_000):
        kv.set(str(number), "y" * 2000)
        kept = number + 1
    print("never full")
except StoreUnavailable as error:
    print("refused:", error)
assert store.outage.is_active or kept >= 0
ballast.unlink()
kv.set("after", 1)
found = kv.items()
assert all(str(number) in found for number in range(kept)), "something acknowledged is lost"
assert len(found) == kept + 1
print("checked", store.check())
store.close()
"""

FULL_AT_START = """
import os, sys
from pathlib import Path
from ostler.errors import StoreUnavailable
from ostler.store import Store
root = Path(sys.argv[1])
path = root / "state" / "ostler.db"
if sys.argv[2:] == ["used"]:
    Store.open(path).close()
ballast = root / "ballast"
with ballast.open("wb") as file:
    try:
        while True:
            os.write(file.fileno(), b"x" * 4096)
    except OSError:
        pass
try:
    Store.open(path)
except StoreUnavailable as error:
    print("refused:", error)
store = Store.open(path, later=True)
print("problems:", store.problems())
try:
    store.kv("x").set("key", 1)
except StoreUnavailable as error:
    print("write refused:", error)
ballast.unlink()
store.kv("x").set("key", 2)
assert store.kv("x").get("key") == 2
assert store.problems() == []
store.close()
print("back")
"""

READ_ONLY_AT_START = """
import subprocess, sys
from pathlib import Path
from ostler.store import Store
root = Path(sys.argv[1])
path = root / "state" / "ostler.db"
Store.open(path).close()
subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
store = Store.open(path, later=True)
print("problems:", store.problems())
subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
store.kv("x").set("key", 2)
assert store.problems() == []
store.close()
print("back")
"""

READ_ONLY = """
import subprocess, sys
from pathlib import Path
from ostler.errors import StoreUnavailable
from ostler.store import Store
root = Path(sys.argv[1])
Store.open(root / "state" / "ostler.db").close()
subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
try:
    Store.open(root / "state" / "ostler.db")
except StoreUnavailable as error:
    print("refused:", error)
subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
Store.open(root / "state" / "ostler.db").close()
print("back")
"""


FULL_WITHIN_THE_START = """
import subprocess, sys
from pathlib import Path
from ostler.store import Store
root = Path(sys.argv[1])
for size in range(20, 220, 10):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(root)], check=True)
    store = Store.open(root / "state" / "ostler.db", later=True)
    print(size, store.problems())
    subprocess.run(["mount", "-o", "remount,size=9m", str(root)], check=True)
    store.kv("x").set("key", 2)
    assert store.problems() == [], size
    store.close()
    subprocess.run(["umount", "-l", str(root)], check=True)
print("back")
"""


@pytest.mark.failure_mode("State", "disk full and then not")
def test_a_disk_that_gets_full_at_any_point_of_a_start(tmp_path):
    assert "back" in on_a_tmpfs(tmp_path, FULL_WITHIN_THE_START)


def on_a_tmpfs(folder, script, more=""):
    """Run a script in a mount namespace of its own, with a file system of 2 MiB at `folder`."""
    mount = f'mount -t tmpfs -o size=2m none {folder} && exec {sys.executable} -c "$0" {folder} {more}'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    if done.stderr.startswith("unshare:") or "permission denied" in done.stderr.lower():
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.failure_mode("State", "disk full and then not")
def test_disk_full_and_then_not_on_a_real_one(tmp_path):
    told = on_a_tmpfs(tmp_path, FULL)
    assert "refused: the database" in told
    assert "no space left" in told or "disk reports an error" in told
    assert "checked []" in told


@pytest.mark.failure_mode("State", "database read-only")
def test_read_only_file_system_and_then_not(tmp_path):
    told = on_a_tmpfs(tmp_path, READ_ONLY)
    assert "refused:" in told
    assert "read-only" in told
    assert "back" in told


@pytest.mark.failure_mode("State", "disk full and then not")
@pytest.mark.parametrize("before", ["used", ""])
def test_a_start_on_a_full_disk_goes_on_by_itself_when_there_is_room(tmp_path, before):
    told = on_a_tmpfs(tmp_path, FULL_AT_START, before)
    assert "refused: the database" in told or "refused: /" in told
    assert "no space left" in told.lower()
    assert "back" in told


@pytest.mark.failure_mode("State", "database read-only")
def test_a_start_on_a_read_only_file_system_goes_on_when_it_can_be_written(tmp_path):
    told = on_a_tmpfs(tmp_path, READ_ONLY_AT_START)
    assert "read-only" in told.lower()
    assert "back" in told
