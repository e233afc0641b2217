"""Reload by signal under `Type=notify-reload`, on a systemd that knows it."""

import pytest
from installation import CONFIGURATION

BETTER = CONFIGURATION + '\n[log]\nlevel = "debug"\n'
BROKEN = CONFIGURATION + "\n[log\n"


@pytest.fixture
def version(machine):
    return int(machine.systemctl("--version").stdout.split()[1])


def test_a_reload_by_signal_comes_to_its_end(unit, version):
    if version < 253:
        pytest.skip(f"systemd {version} does not know notify-reload: make test-trixie")
    unit.add("notify-reload.conf")
    unit.start()
    pid = unit.pid
    assert unit.show("Type") == "notify-reload"
    unit.configure(BETTER)
    unit.machine.systemctl("reload", "ostler", timeout=20)
    assert "log.level" in unit.show("StatusText")
    assert (unit.pid, unit.show("SubState")) == (pid, "running")


def test_a_refused_reload_by_signal_is_told_in_the_status(unit, version):
    if version < 253:
        pytest.skip(f"systemd {version} does not know notify-reload: make test-trixie")
    unit.add("notify-reload.conf")
    unit.start()
    unit.configure(BROKEN)
    unit.machine.systemctl("reload", "ostler", timeout=20)
    assert "refused" in unit.show("StatusText")
    assert unit.show("ActiveState") == "active"


def test_an_older_systemd_still_starts_it_and_cannot_reload(unit, version):
    if version >= 253:
        pytest.skip(f"systemd {version} knows notify-reload")
    unit.add("notify-reload.conf")
    unit.start()
    assert unit.show("Type") == "notify"
    refused = unit.machine.systemctl("reload", "ostler", check=False)
    assert "not applicable" in refused.stderr
