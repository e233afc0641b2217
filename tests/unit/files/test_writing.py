from __future__ import annotations

import errno
import os
import stat

import pytest

from ostler.files import UnreadableFile, create_file, make_directory, move_file, replace_file, restrict_mode, writing


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_file_is_made_with_its_mode_and_nothing_else_is_left(tmp_path, open_umask):
    replace_file(tmp_path / "file", b"one", mode=0o640)
    assert (tmp_path / "file").read_bytes() == b"one"
    assert mode(tmp_path / "file") == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_replaced_file_passes_its_mode_and_group_on(tmp_path):
    (tmp_path / "file").write_bytes(b"one")
    (tmp_path / "file").chmod(0o664)
    if os.geteuid() == 0:
        os.chown(tmp_path / "file", 12, 34)
    before = (tmp_path / "file").stat()
    replace_file(tmp_path / "file", b"two", mode=0o600)
    after = (tmp_path / "file").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").symlink_to("elsewhere")
    with pytest.raises(UnreadableFile, match="is a symbolic link and is not overwritten"):
        replace_file(tmp_path / "link", b"x", mode=0o600)
    with pytest.raises(OSError, match="is a symbolic link"):
        replace_file(tmp_path / "folder" / "file", b"x", mode=0o600)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "link", b"x")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_name_that_is_taken_stays_as_it_is_when_the_file_must_be_new(tmp_path):
    replace_file(tmp_path / "file", b"one", mode=0o600, is_new=True)
    with pytest.raises(FileExistsError) as caught:
        replace_file(tmp_path / "file", b"two", mode=0o600, is_new=True)
    assert caught.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_directories_have_the_mode_that_was_asked_for(tmp_path, open_umask):
    assert make_directory(tmp_path / "a" / "b" / "c", 0o700) is True
    assert [mode(tmp_path / path) for path in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o700]
    assert make_directory(tmp_path / "a", 0o700) is False
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "file", 0o700)


def test_what_is_too_open_is_tightened_and_a_link_is_not_followed(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o666)
    assert restrict_mode(tmp_path / "file", 0o640) == 0o666
    assert mode(tmp_path / "file") == 0o640
    assert restrict_mode(tmp_path / "file", 0o640) is None
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="link"):
        restrict_mode(tmp_path / "link", 0o600)


def test_the_mode_of_what_others_use_as_well_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").chmod(0o666)
    with pytest.raises(UnreadableFile, match="neither a regular file nor a directory"):
        restrict_mode(tmp_path / "pipe", 0o755)
    assert mode(tmp_path / "pipe") == 0o666
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    assert restrict_mode(tmp_path / "shared", 0o755) is None
    assert mode(tmp_path / "shared") == 0o1777


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_nothing_but_a_regular_file_is_replaced(tmp_path, what):
    path = tmp_path / what
    if what == "pipe":
        os.mkfifo(path)
    elif os.geteuid():
        pytest.skip("needs root, to make a device")
    else:
        os.mknod(path, stat.S_IFCHR, os.makedev(1, 3))
    path.chmod(0o666)
    before = path.lstat()
    with pytest.raises(UnreadableFile, match="is not a regular file and is not overwritten"):
        replace_file(path, b"new", mode=0o644)
    with pytest.raises(FileExistsError):
        create_file(path, b"new")
    (tmp_path / "made").touch()
    with pytest.raises(FileExistsError):
        move_file(tmp_path / "made", path, mode=0o644)
    assert path.lstat() == before
    assert {each.name for each in tmp_path.iterdir()} == {"made", what}


def test_a_file_is_moved_to_a_name_that_is_free_and_never_over_another(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "made").write_bytes(b"text")
    move_file(tmp_path / "made", tmp_path / "folder" / "there", mode=0o640)
    assert (tmp_path / "folder" / "there").read_bytes() == b"text"
    assert mode(tmp_path / "folder" / "there") == 0o640
    (tmp_path / "made").write_bytes(b"other")
    (tmp_path / "folder" / "link").symlink_to("nowhere")
    for name in ("there", "link"):
        with pytest.raises(FileExistsError):
            move_file(tmp_path / "made", tmp_path / "folder" / name, mode=0o600)
    assert (tmp_path / "made").read_bytes() == b"other"


def test_between_file_systems_it_is_copied(tmp_path, monkeypatch):
    real, tried = writing.publish_file, []

    def place(source, fresh, target, name, *, is_new):
        tried.append(name)
        if len(tried) == 1:
            raise OSError(errno.EXDEV, "another file system")
        real(source, fresh, target, name, is_new=is_new)

    # A second file system cannot be mounted without privileges.
    monkeypatch.setattr(writing, "publish_file", place)
    (tmp_path / "folder").mkdir()
    (tmp_path / "made").write_bytes(b"x" * 100_000)
    move_file(tmp_path / "made", tmp_path / "folder" / "there", mode=0o600)
    assert (tmp_path / "folder" / "there").read_bytes() == b"x" * 100_000
    assert mode(tmp_path / "folder" / "there") == 0o600
    assert not (tmp_path / "made").exists()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["there"]


def test_a_replaced_file_passes_its_extended_attributes_on(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")
    try:
        os.setxattr(file, "user.note", b"kept")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    replace_file(file, b"new", mode=0o644)
    assert os.getxattr(file, "user.note") == b"kept"
    os.setxattr(file, "user.note", b"kept")
    replace_file(file, b"secret", mode=0o600, max_mode=0o600)
    assert not os.listxattr(file)
