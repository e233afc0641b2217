from __future__ import annotations

import os

import pytest

from ostler.files import beneath, open_beneath, open_directory

# private: _openat2: what a kernel without the system call answers


@pytest.fixture(params=["openat2", "by component"])
def opened(request, monkeypatch, tmp_path):
    """Return a function that opens a path below a directory, in both ways."""
    if request.param == "by component":
        # What a kernel without the system call answers.
        monkeypatch.setattr(beneath, "_openat2", lambda *_: (-1, 38))
    directory = open_directory(tmp_path)

    def read(path):
        descriptor = open_beneath(directory, path, os.O_RDONLY)
        try:
            return os.read(descriptor, 100)
        finally:
            os.close(descriptor)

    yield read
    os.close(directory)


def test_what_lies_below_a_directory_is_opened(opened, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"text")
    assert opened("a/b/file") == b"text"
    assert opened("a//b/./file") == b"text"


@pytest.mark.parametrize(
    "path", ["link", "folder/file", "../outside", "a/../../outside", "/etc/hostname", "missing", "magic/exe"]
)
def test_no_path_leads_out_and_no_link_is_followed(opened, tmp_path, path):
    (tmp_path / "a").mkdir()
    (tmp_path.parent / "outside").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path.parent / "outside")
    (tmp_path / "folder").symlink_to(tmp_path.parent)
    (tmp_path.parent / "file").write_bytes(b"secret")
    (tmp_path / "magic").symlink_to("/proc/self")
    with pytest.raises(OSError):
        opened(path)


def test_a_directory_that_is_a_link_is_refused_in_words(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="is a symbolic link"):
        open_directory(tmp_path / "link")
    os.close(open_directory(tmp_path / "link", follow=True))
