"""The plugin in a host: real service, drivers in their lanes, store, dispatcher and clients; nothing is a fake."""

# private: _drop_link: a program that is killed closes its connection without cancelling its calls, as `close` does

from __future__ import annotations

import os
import threading

import pytest

from ostler import (
    Cancelled,
    ConfigurationError,
    Conflict,
    DriverError,
    DriverNotReady,
    DriverState,
    InvalidInput,
    NoCapacity,
    NotFound,
    OstlerError,
    Retry,
)
from ostler.testing import host
from ostler_volume import file_driver
from ostler_volume.api_types import Snapshot, Volume
from ostler_volume.errors import BadName, BadSize, VolumeNotFound

MIB = 2**20
CONFIG = """
[services.volume]
manager = "volume"

[services.volume.drivers.local]
driver = "file"
path = "{0}/local"
reserve = "0B"
image_directories = ["{0}"]
retry_interval = 0.05

[services.volume.drivers.second]
driver = "file"
path = "{0}/second"
reserve = "0B"
image_directories = ["{0}"]
retry_interval = 0.05
"""
SOON = CONFIG.replace('manager = "volume"', 'manager = "volume"\ndriver_init_wait = 0')


@pytest.fixture
def start(tmp_path):
    def open_host(config=CONFIG):
        return host(plugins=["ostler_volume.plugin"], config=config.format(tmp_path), state=tmp_path / "state")

    return open_host


def create(h, **arguments):
    return h.on(type=Volume).call("volume", "create_volume", **arguments)


def test_volumes_live_over_the_wire_and_over_a_restart(start, image):
    with start() as h:
        gold = create(h, name="gold", size="4MiB", image=str(image), backend="local")
        assert (gold.size, gold.state, gold.host) == (4 * MIB, "available", "testhost")
        h.on(type=Snapshot).call("volume", "create_snapshot", volume="gold", name="v1")
        h.on(type=Volume).call("volume", "extend_volume", name="gold", size=5 * MIB)
        assert h.events("volume.testhost.created")[0].payload["name"] == "gold"
    with start() as h:
        assert create(h, name="web", snapshot="v1").size == 4 * MIB
        listed = h.on(type=list[Volume]).call("volume", "list_volumes")
        assert [(one.name, one.size, one.snapshots) for one in listed] == [("gold", 5 * MIB, 1), ("web", 4 * MIB, 0)]
        h.run_periodic("volume", "check")
        h.call("volume", "delete_volume", name="web")
        assert [one.name for one in h.on(type=list[Volume]).call("volume", "list_volumes")] == ["gold"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": "a/b", "size": "1MiB"}, BadName),
        ({"name": "", "size": "1MiB"}, BadName),
        ({"name": "a", "size": -1}, BadSize),
        ({"name": "a", "size": 0}, BadSize),
        ({"name": "a", "size": "ten"}, BadSize),
        ({"name": "a"}, BadSize),
        ({"name": "a", "size": "7EiB"}, NoCapacity),
        ({"name": "a", "size": "1MiB", "image": "/missing"}, InvalidInput),
        ({"name": "a", "size": "1MiB", "source": "missing"}, VolumeNotFound),
        ({"name": "a", "size": "1MiB", "backend": "tape"}, InvalidInput),
    ],
)
def test_bad_input_is_refused_by_name_and_leaves_nothing(start, tmp_path, arguments, error, caplog):
    with start() as h:
        with pytest.raises(error):
            create(h, **arguments)
        assert h.call("volume", "list_volumes") == []
        assert [path for path in tmp_path.glob("*/volumes/*")] == []  # noqa: C416 - shown when it fails
    assert "Traceback" not in caplog.text


def test_a_cancelled_copy_is_gone_when_its_caller_went_away(start, tmp_path, monkeypatch):
    monkeypatch.setattr(file_driver, "reflink", lambda *_: False)  # the file system may be one that shares blocks
    source = tmp_path / "big"
    source.write_bytes(os.urandom(64 * MIB))
    told = threading.Event()

    def interrupt(how_far):
        told.set()
        raise KeyboardInterrupt

    with start() as h:
        with pytest.raises((KeyboardInterrupt, Cancelled)), h.client() as client:
            client.on(on_progress=interrupt).call(
                "volume", "create_volume", name="a", size="64MiB", image=str(source), backend="local"
            )
        assert told.is_set()
        h.wait_for(lambda: not h.call("volume", "list_volumes"), "the record to go")
        assert list((tmp_path / "local" / "volumes").iterdir()) == []


@pytest.mark.parametrize("retry", [None, Retry()], ids=["once", "retried"])
def test_a_copy_goes_on_when_its_caller_has_disconnected(start, tmp_path, monkeypatch, retry):
    began, go_on = threading.Event(), threading.Event()

    def wait(*_):
        began.set()
        go_on.wait(20)
        return False

    monkeypatch.setattr(file_driver, "reflink", wait)  # a copy that takes as long as the test wants
    (tmp_path / "image").write_bytes(b"x" * 4096)
    ended = []

    def copy(client):
        arguments = {"name": "a", "size": "1MiB", "image": str(tmp_path / "image"), "backend": "local"}
        try:
            ended.append(client.on(retry=retry).call("volume", "create_volume", **arguments))
        except OstlerError as error:
            ended.append(error)

    with start(CONFIG + '[messaging]\norphan_grace = "0s"\n') as h:
        began.clear()
        with h.client() as client:
            copying = threading.Thread(target=copy, args=[client])
            copying.start()
            assert began.wait(10)
            client._drop_link()
        copying.join(10)
        assert isinstance(ended[0], OstlerError)
        h.wait_for(lambda: h.status("volume").in_flight == 1, "the call, which waits for the copy, to end")
        go_on.set()
        h.wait_for(
            lambda: [one.state for one in h.on(type=list[Volume]).call("volume", "list_volumes")] == ["available"],
            "the copy to end",
        )


def test_reading_goes_on_while_copies_have_every_thread(start, tmp_path, monkeypatch):
    began, go_on = threading.Event(), threading.Event()

    def wait(*_):
        began.set()
        go_on.wait(20)
        return False

    monkeypatch.setattr(file_driver, "reflink", wait)  # a copy that takes as long as the test wants
    config = CONFIG.replace('manager = "volume"', 'manager = "volume"\nworkers = 1', 1)
    (tmp_path / "image").write_bytes(b"x" * 4096)
    with start(config) as h:
        began.clear()
        arguments = {"name": "a", "size": "1MiB", "image": str(tmp_path / "image"), "backend": "local"}
        copy = threading.Thread(target=lambda: create(h, **arguments))
        copy.start()
        assert began.wait(10)
        assert [one.state for one in h.on(type=list[Volume]).call("volume", "list_volumes")] == ["creating"]
        assert h.on(type=Volume).call("volume", "get_volume", name="a").state == "creating"
        go_on.set()
        copy.join(10)
        assert h.on(type=Volume).call("volume", "get_volume", name="a").state == "available"


@pytest.mark.parametrize("second", ["{0}/local", "{0}/link", "{0}/local/../local/"])
def test_two_backends_on_one_folder_are_a_mistake_of_the_configuration(start, tmp_path, second):
    (tmp_path / "link").symlink_to(tmp_path / "local")
    with pytest.raises(ConfigurationError) as caught, start(CONFIG.replace("{0}/second", second)):
        pytest.fail("it has started")
    lines = [str(problem) for problem in caught.value.problems]
    assert len(lines) == 2
    assert f"drivers.local.path: {tmp_path}/local is also the directory of driver second of service volume" in lines[0]


def test_two_backends_whose_folders_become_one_are_refused_and_the_other_works(start, tmp_path):
    """A check of the configuration cannot know what a mount or a link makes of it later."""
    config = SOON.replace("{0}/second", "{0}/disk/local")
    (tmp_path / "disk").write_text("no folder yet")
    with start(config) as h:
        h.wait_driver("volume", "local")
        (tmp_path / "disk").unlink()
        (tmp_path / "disk").symlink_to(tmp_path)
        h.wait_for(lambda: "another" in str(h.service("volume").drivers.statuses()), "the other to be refused")
        status = {one.name: one for one in h.service("volume").drivers.statuses()}
        ready = next(name for name, one in status.items() if one.state is DriverState.READY)
        other = ({"local", "second"} - {ready}).pop()
        assert "is in use by another backend or daemon" in status[other].why
        with pytest.raises(DriverNotReady, match="another backend"):
            create(h, name="a", size="1MiB", backend=other)
        assert create(h, name="a", size="1MiB").backend == ready


def test_a_backend_whose_folder_comes_later_is_reconciled_then(start, tmp_path):
    config = SOON.replace("{0}/second", "{0}/disk/second")
    (tmp_path / "disk").write_text("no folder yet")
    with start(config) as h:
        h.wait_driver("volume", "local")
        assert create(h, name="a", size="1MiB").backend == "local"
        with pytest.raises((DriverNotReady, DriverError)):
            create(h, name="b", size="1MiB", backend="second")
        (tmp_path / "disk").unlink()
        h.wait_driver("volume", "second")
        assert create(h, name="b", size="1MiB", backend="second").backend == "second"


def test_two_services_of_the_manager_share_neither_names_nor_volumes(start):
    config = CONFIG.replace(
        "[services.volume.drivers.second]",
        '[services.archive]\nmanager = "volume"\n[services.archive.drivers.second]',
    )
    with start(config) as h:
        create(h, name="a", size="1MiB")
        h.call("archive", "create_volume", name="a", size="2MiB")
        assert h.on(type=Volume).call("volume", "get_volume", name="a").size == MIB
        assert h.on(type=Volume).call("archive", "get_volume", name="a").size == 2 * MIB
        with pytest.raises(Conflict):
            create(h, name="a", size="1MiB")
        h.call("archive", "delete_volume", name="a")
        with pytest.raises(NotFound):
            h.call("archive", "get_volume", name="a")
        assert h.on(type=Volume).call("volume", "get_volume", name="a").state == "available"


@pytest.mark.root
def test_attach_and_detach_over_the_wire(root, start):
    with start() as h:
        create(h, name="a", size="1MiB", backend="local")
        device = h.on(type=Volume).call("volume", "attach_volume", name="a").device
        try:
            with pytest.raises(Conflict, match="is in-use"):
                h.call("volume", "delete_volume", name="a")
        finally:
            assert h.on(type=Volume).call("volume", "detach_volume", name="a").state == "available"
        assert device.startswith("/dev/loop")


def test_a_backend_that_is_not_the_one_it_was_fails_and_comes_back_by_itself(start, tmp_path):
    with start() as h:
        create(h, name="a", size="1MiB", backend="local")
    (tmp_path / "local").rename(tmp_path / "away")
    (tmp_path / "local").mkdir()
    with start(SOON) as h:
        h.wait_driver("volume", "second")
        h.wait_for(lambda: "not the backend it was" in str(h.service("volume").drivers.statuses()), "the refusal")
        listed = h.on(type=list[Volume]).call("volume", "list_volumes")
        assert [one.state for one in listed] == ["available"]
        assert "not the backend it was" in listed[0].why
        for method in ("delete_volume", "attach_volume"):
            with pytest.raises(DriverNotReady, match="not the backend it was"):
                h.call("volume", method, name="a")
        assert create(h, name="b", size="1MiB").backend == "second"
        assert list((tmp_path / "local").iterdir()) == []
        (tmp_path / "local").rmdir()
        (tmp_path / "away").rename(tmp_path / "local")
        h.wait_driver("volume", "local")
        h.call("volume", "delete_volume", name="a")


def test_records_follow_a_backend_that_was_renamed_over_the_wire(start):
    with start() as h:
        create(h, name="a", size="1MiB", backend="local")
    with start(CONFIG.replace("drivers.local", "drivers.ssd")) as h:
        h.wait_driver("volume", "ssd")
        assert (
            "backend local is not in the configuration" in h.on(type=Volume).call("volume", "get_volume", name="a").why
        )
        with pytest.raises(InvalidInput, match="backend local not found"):
            h.call("volume", "delete_volume", name="a")
        assert h.call("volume", "move_backend", old="local", new="ssd") == 1
        assert h.on(type=Volume).call("volume", "get_volume", name="a").backend == "ssd"
        h.call("volume", "forget_volume", name="a")
        assert h.on(type=Volume).call("volume", "manage_volume", name="a").state == "available"
        h.call("volume", "delete_volume", name="a")
