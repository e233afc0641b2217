"""What touches the place of an image: in a thread of its own, within a limit."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from ostler import Cancelled, Context
from ostler_volume import copying
from ostler_volume.copying import sparse_copy
from ostler_volume.errors import ImageNotResponding
from ostler_volume.image_thread import (
    ImageMount,
    ImageMounts,
    ImageThread,
    is_mount_or_symlink,
    mount_point_of,
    resolve_path,
)
from ostler_volume.images import open_guarded_image
from support.waiting import wait_until

LIMIT = 0.05


@pytest.fixture
def image(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.raw").write_bytes(b"x" * 10_000)
    return folder / "a.raw"


def test_steps_run_in_a_thread_of_their_own_and_results_and_errors_come_back():
    source = ImageThread(ImageMount("/mnt"), 5)
    name = source.run("asking", lambda: threading.current_thread().name)
    assert name == "image below /mnt"
    with pytest.raises(ZeroDivisionError):
        source.run("dividing", lambda: 1 // 0)
    closed = threading.Event()
    source.close(closed.set)
    assert closed.wait(10)


@pytest.mark.failure_mode("Plugins", "an image on a dead mount")
def test_a_step_that_hangs_is_given_up_by_name_and_its_place_refused_at_once(gate):
    place = ImageMount("/mnt/share")
    source = ImageThread(place, LIMIT)
    with pytest.raises(ImageNotResponding, match="reading a hangs") as caught:
        source.run("reading a", lambda: gate.wait(10))
    assert caught.value.details["place"] == "/mnt/share"
    with pytest.raises(ImageNotResponding):
        source.run("reading a", lambda: 1)
    with pytest.raises(ImageNotResponding, match="access to /mnt/share hangs"):
        ImageThread(place, 60)
    closed = threading.Event()
    source.close(closed.set)
    assert not closed.is_set()
    gate.set()
    assert closed.wait(10), "it is closed when the thread has come back"
    assert ImageThread(place, 60).run("reading b", lambda: 2) == 2


def test_now_and_then_a_place_that_hangs_is_tried_again_but_not_for_ever(gate):
    place = ImageMount("/mnt/share", max_hung=2)
    for _ in range(2):
        with pytest.raises(ImageNotResponding, match="reading a"):
            ImageThread(place, LIMIT).run("reading a", lambda: gate.wait(10))
        time.sleep(2 * LIMIT)
    with pytest.raises(ImageNotResponding, match="access to /mnt/share hangs"):
        ImageThread(place, LIMIT)


def test_a_request_that_is_taken_back_waits_no_longer(gate):
    context = Context("volume", "create_volume")
    context.cancel()
    with pytest.raises(Cancelled):
        ImageThread(ImageMount("/mnt"), 60).run("reading a", lambda: gate.wait(10), context.check)


def test_an_image_is_read_and_closed_in_the_thread_of_its_source(image, tmp_path, monkeypatch):
    threads = []
    read = copying.read_piece
    monkeypatch.setattr(  # the thread that reads is seen by who reads only
        copying, "read_piece", lambda *args: threads.append(threading.current_thread().name) or read(*args)
    )
    before = len(list(Path("/proc/self/fd").iterdir()))
    with (
        open_guarded_image(str(image), [str(image.parent)], ImageMounts(), 5) as found,
        (tmp_path / "t").open("w+b") as target,
    ):
        with found.borrow() as source:
            assert sparse_copy(source, target.fileno(), found.size, lambda _done, _total: None) == 10_000
        assert target.read() == b"x" * 10_000
    assert threads
    assert all(name.startswith("image below /") for name in threads)
    wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)


@pytest.mark.failure_mode("Plugins", "an image on a dead mount")
def test_an_image_that_hangs_while_copied_ends_the_copy_and_tells_meanwhile(image, tmp_path, gate, monkeypatch):
    monkeypatch.setattr(copying, "read_piece", lambda *_: gate.wait(10))  # no file system that hangs can be mounted
    told = []
    with (
        open_guarded_image(str(image), [str(image.parent)], ImageMounts(), 2 * LIMIT) as found,
        found.borrow() as source,
        (tmp_path / "t").open("w+b") as target,
        pytest.raises(ImageNotResponding, match=f"reading the image {image} hangs"),
    ):
        sparse_copy(source, target.fileno(), found.size, lambda done, total: told.append((done, total)))
    assert len(told) > 1, "who waits is told, and the budget of the driver's call does not run out"
    assert set(told) == {(0, 10_000)}


def test_the_place_of_a_path_is_its_mount_and_found_without_touching_it(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text("1 2 0:1 / / rw - ext4 a rw\n3 1 0:2 / /mnt/a\\040b rw - nfs4 b rw\n")
    assert mount_point_of("/mnt/a b/x/../y.raw", table) == "/mnt/a b"
    assert mount_point_of("/mnt/a c", table) == "/"
    assert mount_point_of("/mnt/a b/y", tmp_path / "missing") == "/"
    places = ImageMounts()
    assert places.mount_of_path("/x") is places.mount_of_path("/y")


def test_a_path_is_resolved_and_one_that_hangs_is_taken_as_it_is_written(tmp_path, gate, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert resolve_path(str(tmp_path / "link")) == str(tmp_path / "real")
    monkeypatch.setattr(os.path, "realpath", lambda _path: gate.wait(10))  # no file system that hangs can be mounted
    assert resolve_path("/mnt/../mnt/x", LIMIT) == "/mnt/x"
    began = time.monotonic()
    assert resolve_path("/mnt/y", 60) == "/mnt/y", "the other look there hangs still"
    assert time.monotonic() - began < 10


def test_an_image_directory_that_is_a_mount_or_link_is_known_without_touching_it(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    assert not is_mount_or_symlink(tmp_path / "images")
    (tmp_path / "link").symlink_to("/mnt/dead")
    assert is_mount_or_symlink(tmp_path / "link")
    table = tmp_path / "mountinfo"
    table.write_text("1 2 0:1 / / rw - ext4 a rw\n3 1 0:2 / /mnt/dead rw - nfs4 b rw\n")
    # A file system that hangs when it is touched cannot be mounted without privileges.
    monkeypatch.setattr(Path, "is_symlink", lambda _path: pytest.fail("touched"))
    assert is_mount_or_symlink(Path("/mnt/dead"), table)
