from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from ostler_volume.errors import BadImage
from ostler_volume.images import open_image, open_own_image


def refusal(path, directory=None):
    with pytest.raises(BadImage) as caught:
        open_image(str(path), [str(directory or path.parent)])
    return str(caught.value)


def content(opened, count):
    with opened.borrow() as descriptor:
        return os.pread(descriptor, count, 0)


def test_a_raw_image_is_opened_with_its_size(image):
    with open_image(str(image), [str(image.parent)]) as opened:
        assert opened.size == 3 * 2**20
        assert content(opened, 5) == b"begin"
    with pytest.raises(BadImage, match="is closed"):
        content(opened, 5)


def test_what_was_opened_is_what_is_read_whatever_lies_at_its_path_then(image):
    with open_image(str(image), [str(image.parent)]) as opened:
        image.unlink()
        image.write_bytes(b"another")
        assert content(opened, 5) == b"begin"


def test_a_copy_that_outlives_its_caller_keeps_a_descriptor_of_its_own(image):
    opened = open_image(str(image), [str(image.parent)])
    with opened.borrow() as descriptor:
        opened.close()
        assert os.pread(descriptor, 5, 0) == b"begin"


@pytest.mark.parametrize("opening", ["below a directory", "by its caller"])
def test_what_is_no_image_is_refused_by_name(tmp_path, opening):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "disk").write_bytes(b"QFI\xfb" + bytes(100))
    for name, what in (
        ("missing", "No such file"),
        ("folder", "is a directory"),
        ("pipe", "is not a regular file"),
        ("disk", "has the unsupported format qcow2"),
    ):
        directories = [] if opening == "by its caller" else [[str(tmp_path)]]
        open_it = open_image if directories else open_own_image
        with pytest.raises(BadImage, match=what):
            open_it(str(tmp_path / name), *directories)


def test_an_image_that_the_daemon_may_not_read_is_refused():
    # Not below the folder of the test, which another user than root cannot enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        image = Path(folder, "image")
        image.write_bytes(bytes(512))
        image.chmod(0)
        as_root = os.geteuid() == 0
        if as_root:
            os.seteuid(65534)
        try:
            said = refusal(image)
        finally:
            if as_root:
                os.seteuid(0)
    assert "Permission denied" in said


@pytest.mark.parametrize(("magic", "name"), [(b"QFI\xfb", "qcow2"), (b"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\0", "xz")])
def test_another_format_is_named_instead_of_copied(tmp_path, magic, name):
    (tmp_path / "a").write_bytes(magic + bytes(100))
    said = refusal(tmp_path / "a")
    assert f"has the unsupported format {name}" in said
    assert "qemu-img convert" in said


def test_outside_of_the_image_directories_nothing_is_looked_at(image, tmp_path):
    """Was: any file that the daemon could read, its own keys and database among them."""
    allowed = tmp_path / "images"
    allowed.mkdir()
    there, nowhere = refusal(image, allowed), refusal(tmp_path / "nothing", allowed)
    assert "is not in an image directory" in there
    assert there.replace(str(image), "X") == nowhere.replace(str(tmp_path / "nothing"), "X")
    with pytest.raises(BadImage, match="is not in an image directory"):
        open_image(str(image), [])


@pytest.mark.parametrize("path", ["link", "folder/image.raw", "../image.raw", "deeper/../../image.raw"])
def test_no_link_and_no_path_leads_out_of_an_image_directory(image, tmp_path, path):
    allowed = tmp_path / "images"
    (allowed / "deeper").mkdir(parents=True)
    (allowed / "link").symlink_to(image)
    (allowed / "folder").symlink_to(tmp_path)
    assert "cannot read" in refusal(allowed / path, allowed)


def test_an_image_directory_may_itself_be_named_through_a_link(image, tmp_path):
    (tmp_path / "images").symlink_to(tmp_path, target_is_directory=True)
    for path in (image, tmp_path / "images" / image.name):
        with open_image(str(path), [str(tmp_path / "images")]) as opened:
            assert opened.size == 3 * 2**20


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_a_second_name_of_a_file_of_somebody_else_is_no_image(image, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 60_001, 60_001)
    (theirs / "image").hardlink_to(image)
    assert "a hard link to a file of another user" in refusal(theirs / "image")


def test_a_file_that_is_exchanged_for_a_link_again_and_again_is_never_followed(tmp_path):
    """Was: the path was resolved, judged, and then opened."""
    allowed = tmp_path / "images"
    allowed.mkdir()
    (tmp_path / "secret").write_bytes(b"secret" + bytes(506))
    (allowed / "file").write_bytes(b"public" + bytes(506))
    (allowed / "link").symlink_to(tmp_path / "secret")
    done = threading.Event()

    def exchange():
        while not done.is_set():
            for name in ("link", "file"):
                os.link(allowed / name, allowed / "next", follow_symlinks=False)
                (allowed / "next").rename(allowed / "image")

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        seen = set()
        for _ in range(2000):
            try:
                with open_image(str(allowed / "image"), [str(allowed)]) as opened:
                    seen.add(content(opened, 6))
            except BadImage:
                pass
    finally:
        done.set()
        exchanging.join()
    assert seen <= {b"public"}
