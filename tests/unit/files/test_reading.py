from __future__ import annotations

import os
import socket
import threading

import pytest

from ostler.files import UnreadableFile, open_regular, read_bounded, read_regular


def test_a_regular_file_is_read_with_its_status(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 5000)
    found = read_regular(tmp_path / "file", 5000)
    assert found.data == b"x" * 5000
    assert found.status.st_size == 5000


def test_what_is_larger_than_its_limit_is_refused_unread(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(40 * 2**30)
    with pytest.raises(UnreadableFile, match="is larger than 1MiB"):
        read_regular(tmp_path / "sparse", 2**20)
    with pytest.raises(UnreadableFile, match="is larger than 3 bytes"):
        read_bounded(tmp_path / "sparse", 3)


def test_pipes_directories_sockets_and_devices_are_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    for path, what in (("pipe", "is not a regular file"), ("socket", "is not a regular file"), (".", "is a directory")):
        with pytest.raises(UnreadableFile, match=what) as caught:
            open_regular(tmp_path / path)
        assert caught.value.status is not None
    with pytest.raises(UnreadableFile, match="is not a regular file"):
        open_regular("/dev/zero")


def test_a_link_is_followed_only_when_it_may_be(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 100).data == b"text"
    with pytest.raises(UnreadableFile, match="is a symbolic link"):
        read_regular(tmp_path / "link", 100, follow=False)


def test_a_pipe_that_the_caller_named_is_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"key",))
    writer.start()
    assert read_bounded(tmp_path / "pipe", 100) == b"key"
    writer.join()


def test_an_error_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read_regular(tmp_path / "missing", 100)
    assert caught.value.filename == str(tmp_path / "missing")
