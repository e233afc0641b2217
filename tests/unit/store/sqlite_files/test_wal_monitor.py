import subprocess
import sys

from ostler.store.sqlite_files.wal_monitor import WalMonitor, locking_processes


def test_a_log_that_grows_is_said_once_with_since_when_and_once_when_it_is_back(path, clock, caplog):
    growth = WalMonitor(path, clock, limit=1000)
    growth.check(900)
    assert growth.problems() == []
    growth.check(3 * 2**20)
    growth.check(4 * 2**20)
    [line] = growth.problems()
    assert "4 MiB" in line
    assert "since" in line
    growth.check(1000)
    assert growth.problems() == []
    assert len(caplog.records) == 2


def test_the_process_that_reads_is_named(tmp_path):
    file = tmp_path / "shm"
    file.touch()
    script = f"import fcntl; f = open({str(file)!r}, 'r+'); fcntl.lockf(f, fcntl.LOCK_SH); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert f"(process {child.pid})" in locking_processes(file)[0]
        child.stdin.close()

    assert locking_processes(file) == []
