"""What the unit allows: little, but enough."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from installation import CONFIGURATION, UNITS

VIEWERS = CONFIGURATION + '\n[access]\nviewer = ["games"]\n'


@pytest.mark.parametrize(
    ("drop_in", "at_most"), [("", 1.5), ("dynamic-user.conf", 1.5), ("venv.conf", 1.5), ("attach.conf", 1.7)]
)
def test_the_exposure_is_at_most_what_is_promised(machine, drop_in, at_most):
    machine.run("rm", "-rf", "/tmp/exposure")
    machine.write("/tmp/exposure/ostler.service", (UNITS / "ostler.service").read_text())
    if drop_in:
        text = (UNITS / "drop-ins" / drop_in).read_text()
        machine.write("/tmp/exposure/ostler.service.d/it.conf", text)
    threshold = f"--threshold={round(at_most * 10)}"
    # Passing is the assertion: above the threshold it exits with an error.
    machine.run("systemd-analyze", "security", "--offline=true", threshold, "/tmp/exposure/ostler.service")


def test_systemd_finds_nothing_to_complain_about_in_the_unit(unit):
    verified = unit.machine.run("systemd-analyze", "verify", "--man=no", "ostler.service", check=False)
    complaints = [line for line in (verified.stdout + verified.stderr).splitlines() if "ostler" in line]
    assert (verified.returncode, complaints) == (0, [])


def test_the_journal_has_entries_with_fields(unit):
    unit.start()
    entry = unit.await_entry(lambda entry: str(entry.get("MESSAGE")).startswith("ready:"))
    assert entry["SYSLOG_IDENTIFIER"] == "ostler"
    assert entry["PRIORITY"] == "6"
    assert entry["_SYSTEMD_UNIT"] == "ostler.service"
    assert len(entry["MESSAGE_ID"]) == 32
    assert any(name.startswith("OSTLER_") for name in entry)


def test_a_local_user_is_known_by_uid_and_has_no_role_by_default(unit):
    unit.start()
    refused = unit.ostler("status", check=False, user="games")
    assert refused.returncode == 4
    assert "this user is not allowed to use the socket" in refused.stderr
    assert "[access]" in refused.stderr
    assert unit.ostler("status", user="ostler").returncode == 0


def test_a_local_user_has_the_role_that_access_gives(unit):
    unit.configure(VIEWERS)
    unit.start()
    assert unit.ostler("status", user="games").returncode == 0
    assert unit.ostler("reload", check=False, user="games").returncode == 4


def test_the_plain_unit_refuses_to_attach_and_names_the_drop_in(unit):
    unit.start()
    unit.ostler("volume", "create", "data", "--size", "1MiB")
    refused = unit.ostler("volume", "attach", "data", check=False)
    assert refused.returncode == 1
    assert "attach.conf" in refused.stderr
    assert "Traceback" not in refused.stderr + unit.messages()


@pytest.fixture
def loop_devices_of_disk(unit):
    # In the container nobody sets the modes of device nodes; udev does on a host. They are this machine's.
    before = {path: path.stat() for path in Path("/dev").glob("loop*") if not path.is_dir()}
    unit.machine.run("sh", "-c", "chgrp disk /dev/loop* && chmod 660 /dev/loop*")
    yield
    for path, found in before.items():
        os.chown(path, found.st_uid, found.st_gid)
        path.chmod(stat.S_IMODE(found.st_mode))


@pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="needs loop devices")
@pytest.mark.usefixtures("loop_devices_of_disk")
def test_with_its_drop_in_a_volume_is_attached_through_a_loop_device(unit):
    unit.add("attach.conf")
    unit.start()
    unit.ostler("volume", "create", "data", "--size", "16MiB")
    attached = json.loads(unit.ostler("volume", "attach", "data", "--json").stdout)
    device = next(value for value in attached.values() if str(value).startswith("/dev/loop"))
    try:
        assert unit.machine.run("blockdev", "--getsize64", device).stdout == f"{16 * 1024 * 1024}\n"
        assert unit.show("CapabilityBoundingSet") == ""
    finally:
        detached = unit.ostler("volume", "detach", "data", check=False)
        if detached.returncode:
            subprocess.run(["losetup", "--detach", device], check=False)
    assert detached.returncode == 0
