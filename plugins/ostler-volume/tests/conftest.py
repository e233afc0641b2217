from __future__ import annotations

import copy
import logging
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from ostler import Context, DriverEnvironment, DriverState, ManagerEnvironment, Notifier, ServiceNotFound, Store
from ostler.testing import FakeClock
from ostler.types import DriverStatus
from ostler_volume.api_types import SnapshotListing, VolumeListing
from ostler_volume.file_driver import FileDriver, FileDriverOptions
from ostler_volume.manager import VolumeManager
from ostler_volume.volume_options import VolumeOptions

MIB = 2**20


class FakeDrivers(dict):
    """Drivers that are called directly; `states` and `whys` say what they are."""

    def __init__(self, **drivers):
        super().__init__(drivers)
        self.states, self.whys = {}, {}

    def ready(self):
        return [name for name in self if self.status(name).state is DriverState.READY]

    def status(self, name):
        state = self.states.get(name, DriverState.READY)
        return DriverStatus(name=name, driver="file", state=state, why=self.whys.get(name, ""))

    def statuses(self):
        return [self.status(name) for name in self]


LOOKS = ("find_volume", "snapshot_listing", "service_show", "service_list")
"""What is asked before anything is done: how things are, here and on other hosts."""


class FakeClient:
    """Answers calls with what a test put in `answers`; a topic that is not there is nowhere, and there is one host."""

    def __init__(self):
        self.answers, self.calls, self.looks, self.events, self.changes = {}, [], [], [], []
        self.host = None
        self.answers["volume", "find_volume"] = VolumeListing(volumes=[])
        self.answers["volume", "snapshot_listing"] = SnapshotListing(snapshots=[])
        self.answers["ostler", "service_list"] = []

    def on(self, **options):
        view = copy.copy(self)
        view.host = options.get("host", self.host)
        return view

    async def acall(self, topic, method, /, **arguments):
        return self.call(topic, method, **arguments)

    def call(self, topic, method, /, **arguments):
        host = self.host
        (self.looks if method in LOOKS else self.calls).append((topic, method, host, arguments))
        answer = self.answers.get((topic, method))
        if answer is None:
            raise ServiceNotFound(f"no service on the topic {topic}")
        if callable(answer):
            answer = answer(host, arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def notify(self, topic, priority, event, payload, context):
        self.events.append((event, payload))


class FakeKeyValue(dict):
    """The small key-value store of a driver, for one that has no database; `broken` makes it refuse."""

    broken = None

    def get(self, key, default=None):
        if self.broken:
            raise self.broken
        return super().get(key, default)

    def set(self, key, value):
        if self.broken:
            raise self.broken
        self[key] = value


def file_driver(path, name="local", kv=None, **options):
    log = logging.LoggerAdapter(logging.getLogger("ostler.volume"), {})
    chosen = FileDriverOptions(
        driver="file", path=str(path), **{"reserve": "0B", "image_directories": [str(path.parent)], **options}
    )
    environment = DriverEnvironment(
        name=name,
        topic="volume",
        host="node1",
        options=chosen,
        clock=FakeClock(),
        log=log,
        kv=FakeKeyValue() if kv is None else kv,
    )
    driver = FileDriver(environment)
    driver.initialise()
    return driver


def manager_of(store, drivers, client=None, host="node1", topic="volume", **options):
    client = client or FakeClient()
    environment = ManagerEnvironment(
        topic=topic,
        host=host,
        options=VolumeOptions(manager="volume", **options),
        drivers=drivers,
        store=store,
        client=client,
        report_change=lambda *told: client.changes.append(told),
        notifier=Notifier(client, "volume"),
        clock=FakeClock(),
        log=logging.LoggerAdapter(logging.getLogger("ostler.volume"), {}),
    )
    return VolumeManager(environment)


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "state" / "ostler.db", synchronous="NORMAL")
    opened.migrate("volume", "ostler_volume.migrations")
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "volumes"


@pytest.fixture
def driver(folder):
    made = file_driver(folder)
    yield made
    made.cleanup()


@pytest.fixture
def drivers(driver):
    return FakeDrivers(local=driver)


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture
def manager(store, drivers, client):
    return manager_of(store, drivers, client)


@pytest.fixture
def ctx():
    return Context("volume", "test", clock=FakeClock())


@pytest.fixture
def image(tmp_path):
    """An image of 3 MiB: data, a hole, data, zeros."""
    path = tmp_path / "image.raw"
    with path.open("wb") as file:
        file.write(b"begin" + os.urandom(MIB))
        file.seek(2 * MIB)
        file.write(os.urandom(4096))
        file.truncate(3 * MIB)
    return path


@pytest.fixture
def files(folder):
    """Return every file in the folder of the backend that is not the lock or the identity."""
    own = {".lock", ".ostler-backend"}
    return lambda: sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name not in own)


@pytest.fixture
def nothing_left(manager, files):
    """Run a block that must raise, and see that neither a record nor a file is left of it."""

    @contextmanager
    def check(error, *words):
        before = (manager.records.volumes(), manager.records.snapshots(), files())
        with pytest.raises(error) as caught:
            yield caught
        for word in words:
            assert word in str(caught.value)
        assert (manager.records.volumes(), manager.records.snapshots(), files()) == before

    return check


@pytest.fixture
def root():
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices and mounts")


@pytest.fixture
def mkfs(root):
    """Make a file system in a file or on a device; skips where its tool is not installed, and fails there in CI."""

    def make(kind, place, *options):
        tool = f"mkfs.{kind}"
        if shutil.which(tool) is None:
            give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            give_up(f"{tool} is not installed")
        subprocess.run([tool, "-q", *options, str(place)], check=True, capture_output=True)

    return make


@pytest.fixture
def mounted(mkfs, tmp_path):
    """Make a file system in a file and mount it; yields its folder."""
    done = []

    def make(kind, size=320 * MIB, *options):
        backing, place = tmp_path / f"{kind}.img", tmp_path / kind
        with backing.open("wb") as file:
            file.truncate(size)
        place.mkdir()
        mkfs(kind, backing, *options)
        subprocess.run(["mount", "-o", "loop", str(backing), str(place)], check=True, capture_output=True)
        done.append(place)
        return place

    yield make
    for place in done:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def kit():
    """Return the helpers of this file, which a test cannot import."""
    return SimpleNamespace(
        FakeClient=FakeClient,
        FakeDrivers=FakeDrivers,
        FakeKeyValue=FakeKeyValue,
        Path=Path,
        file_driver=file_driver,
        manager=manager_of,
    )
