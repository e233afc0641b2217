from __future__ import annotations

import os

import pytest

from ostler_volume.errors import BadImage
from ostler_volume.images import opened_image


def refusal(path, folders=()):
    with pytest.raises(BadImage) as caught, opened_image(str(path), folders):
        pass
    return str(caught.value)


def test_a_raw_image_is_opened_with_its_size(image):
    with opened_image(str(image), []) as (descriptor, size):
        assert size == 3 * 2**20
        assert os.pread(descriptor, 5, 0) == b"begin"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_what_is_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert "No such file" in refusal(tmp_path / "missing")
    assert "is a folder" in refusal(tmp_path / "folder")
    assert "no regular file" in refusal(tmp_path / "pipe")
    assert "symbolic links" in refusal(tmp_path / "loop")
    assert "no regular file" in refusal("/dev/null")


def test_an_image_that_the_daemon_may_not_read_is_refused(image):
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
    assert "let the daemon's user read it" in said


@pytest.mark.parametrize(("magic", "name"), [(b"QFI\xfb", "qcow2"), (b"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\0", "xz")])
def test_another_format_is_named_instead_of_copied(tmp_path, magic, name):
    (tmp_path / "a").write_bytes(magic + bytes(100))
    said = refusal(tmp_path / "a")
    assert f"is in the format {name}" in said
    assert "qemu-img convert" in said


def test_images_can_be_kept_to_folders_and_links_do_not_lead_out(image, tmp_path):
    allowed = tmp_path / "images"
    allowed.mkdir()
    assert "is not in a folder for images" in refusal(image, [str(allowed)])
    (allowed / "link").symlink_to(image)
    assert "is not in a folder for images" in refusal(allowed / "link", [str(allowed)])
    image.rename(allowed / "image.raw")
    with opened_image(str(allowed / "image.raw"), [str(allowed)]) as (_, size):
        assert size == 3 * 2**20
