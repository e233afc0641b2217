"""Tests of the backup plugin: the service runs in this process, without a daemon or a socket."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from ostler import DriverCrashed, DriverError, NotFound
from ostler.testing import Host, check_driver, check_manager, check_rpc_api, check_rpc_client, host

from ostler_backup.api import BackupApi
from ostler_backup.directory import DirectoryDriver
from ostler_backup.manager import BackupManager
from ostler_backup.native import NativeDriver

PLUGINS = ["ostler_backup.plugin"]
Isolation = Literal["thread", "process"]


class Places:
    """The directories of a test, and the options that name them."""

    def __init__(self, folder: Path) -> None:
        self.home, self.target = folder / "home", folder / "target"
        self.home.mkdir()
        self.target.mkdir()
        (self.home / "letter").write_text("dear reader")
        key = folder / "key"
        key.write_text("a key that signs")
        key.chmod(0o600)
        self.driver: dict[str, Any] = {"path": str(self.target), "key": {"file": str(key)}}
        self.sources: dict[str, Any] = {
            "home": {"path": str(self.home), "cron": "30 * * * *", "target": "disk", "keep": 2},
            "mail": {"path": str(self.home), "cron": "0 3 * * *", "target": "disk"},
        }
        self.config = f"""
[services.backup]
manager = "backup"
volumes = ["covered"]

[services.backup.sources.home]
path = "{self.home}"
cron = "30 * * * *"
target = "disk"
keep = 2

[services.backup.drivers.disk]
driver = "directory"
path = "{self.target}"
key = {{file = "{key}"}}
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def h(places: Places) -> Iterator[Host]:
    with host(plugins=PLUGINS, config=places.config, virtual_time=True) as running:
        yield running


def test_each_source_is_backed_up_at_its_own_time(h: Host, places: Places) -> None:
    assert h.call("backup", "backups") == []
    h.advance(3600)
    assert [backup["source"] for backup in h.call("backup", "backups")] == ["home"]
    assert h.events("backup.*.stored")[0].payload["source"] == "home"


def test_old_backups_are_removed(h: Host, places: Places) -> None:
    h.advance(3 * 3600)
    assert len(h.call("backup", "backups", source="home")) == 2
    assert len(list(places.target.glob("*.tar"))) == 2


def test_an_archive_that_was_changed_is_found(h: Host, places: Places) -> None:
    archive = h.call("backup", "back_up", source="home")["archive"]
    assert h.call("backup", "verify", archive=archive)["archive"] == archive
    with (places.target / archive).open("ab") as file:
        file.write(b"more")
    with pytest.raises(DriverError, match="was changed"):
        h.call("backup", "verify", archive=archive)


def test_a_target_that_is_away_is_tried_again(h: Host, places: Places) -> None:
    away = places.target.with_name("away")
    places.target.rename(away)
    h.restart()
    with h.client() as client:
        operation = client.submit("backup", "back_up", source="home")
        h.advance(1)
        away.rename(places.target)
        h.advance(1200)
        assert operation.result(timeout=10)["source"] == "home"


def test_backups_survive_a_crash(h: Host) -> None:
    archive = h.call("backup", "back_up", source="home")["archive"]
    h.restart(crash=True)
    assert [backup["archive"] for backup in h.call("backup", "backups")] == [archive]


def test_progress_is_reported(h: Host) -> None:
    seen: list[Any] = []
    h.on(on_progress=seen.append).call("backup", "back_up", source="home")
    assert (seen[-1].done, seen[-1].total) == (1, 1)


def test_volumes_that_no_source_covers_are_problems(h: Host) -> None:
    manager = h.manager("backup")
    for name in ("covered", "new"):
        h.publish("volume", "created", {"name": name})
    h.wait_for(manager.problems, "the events of volumes")
    assert manager.problems() == ["volume new is in no source"]
    h.publish("volume", "deleted", {"name": "new"})
    h.wait_for(lambda: not manager.problems(), "the deletion")


ISOLATED = """
[services.backup.sources.mail]
path = "{home}"
target = "fast"

[services.backup.drivers.fast]
driver = "native"
isolation = "process"
path = "{fast}"
key = {{file = "{key}"}}
retry_interval = "200ms"
"""


@pytest.fixture
def fast(places: Places) -> Path:
    directory = places.target.with_name("fast")
    directory.mkdir()
    return directory


@pytest.fixture
def isolated(places: Places, fast: Path) -> Iterator[Host]:
    """A host in real time, as virtual time does not wait for processes: one driver has a process of its own."""
    more = ISOLATED.format(home=places.home, fast=fast, key=places.driver["key"]["file"])
    other = places.config.replace("[services.backup", "[services.other")
    with host(plugins=PLUGINS, config=places.config + more + other) as running:
        wait_for_next_process(running)
        yield running


def wait_for_next_process(running: Host) -> None:
    drivers = running.manager("backup").drivers
    running.wait_for(lambda: "fast" in drivers.ready(), "the driver's process")


def damage_index(fast: Path, archive: str) -> None:
    (fast / f"{archive}.index").write_bytes(struct.pack("<QQI", 1 << 44, 10, 0))


def test_a_driver_that_segfaults_in_its_process_harms_nobody(isolated: Host, fast: Path) -> None:
    damaged = isolated.call("backup", "back_up", source="mail")["archive"]
    damage_index(fast, damaged)
    with pytest.raises(DriverError, match="is damaged: driver fast crashed over it"):
        isolated.call("backup", "verify", archive=damaged)
    # Another source, and the same driver in its next process.
    assert isolated.call("backup", "back_up", source="home")["target"] == "disk"
    wait_for_next_process(isolated)
    good = isolated.call("backup", "back_up", source="mail")["archive"]
    assert isolated.call("backup", "verify", archive=good)["archive"] == good


def test_a_backup_whose_driver_segfaults_is_repeated_and_others_go_on(isolated: Host, fast: Path) -> None:
    damage_index(fast, isolated.call("backup", "back_up", source="mail")["archive"])
    with isolated.client() as client:
        operation = client.submit("backup", "back_up", source="mail")
        others = [isolated.call(topic, "back_up", source="home")["target"] for topic in ("backup", "other")]
        whys = [status.why for status in operation.watch()]
        assert operation.result(timeout=30)["target"] == "fast"
    assert others == ["disk", "disk"]
    assert any("attempt 1 of 10 failed" in why and "killed by SIGSEGV during store" in why for why in whys), whys
    for topic in ("backup", "other"):
        disk = isolated.status(topic).drivers[0]
        assert (disk.name, disk.state, disk.errors) == ("disk", "ready", 0)


def test_an_archive_that_was_changed_before_does_not_keep_a_source_from_its_backup(isolated: Host, fast: Path) -> None:
    with (fast / isolated.call("backup", "back_up", source="mail")["archive"]).open("ab") as file:
        file.write(b"more")
    assert isolated.call("backup", "back_up", source="mail")["target"] == "fast"
    assert not (fast / ".checking").exists()


def test_a_crash_in_an_operation_is_repeated_a_few_times_only(h: Host) -> None:
    h.driver("backup", "disk").fail(DriverCrashed("injected crash"))
    with h.client() as client:
        operation = client.submit("backup", "back_up", source="home")
        h.advance(3600)
        with pytest.raises(DriverCrashed):
            operation.result(timeout=10)


def test_an_unknown_source_is_refused(h: Host) -> None:
    with pytest.raises(NotFound, match="source music not found"):
        h.call("backup", "back_up", source="music")


def test_the_commands(h: Host) -> None:
    assert "Stored home-" in h.command("backup", "run", "home").stdout
    (row,) = h.command("backup", "list", "--json").json()
    assert "is unchanged" in h.command("backup", "verify", row["archive"]).stdout
    assert "source music not found" in h.command("backup", "run", "music").stderr


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("driver", [DirectoryDriver, NativeDriver])
def test_the_drivers_conform(driver: type[DirectoryDriver], places: Places, isolation: Isolation) -> None:
    check_driver(driver, places.driver, isolation=isolation)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_manager_conforms_also_when_drivers_fail(places: Places, isolation: Isolation) -> None:
    drivers = {"disk": (DirectoryDriver, places.driver)}
    check_manager(BackupManager, {"sources": places.sources}, drivers=drivers, plugins=PLUGINS, isolation=isolation)


def test_the_typed_client_matches_the_manager() -> None:
    check_rpc_client(BackupApi, BackupManager)


def test_the_version_reflects_the_changes_since_the_last_release() -> None:
    # README.md says how to add the file of a release.
    check_rpc_api(BackupManager, Path(__file__).parent / "api")
