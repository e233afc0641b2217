from __future__ import annotations

import os
import stat

import pytest

from ostler.config import Paths
from ostler.daemon.startup.directories import make_runtime_directory, secure_directories
from ostler.errors import OstlerError, UntrustedOwner
from ostler.store.sqlite_files.sqlite_connection import make_state_directory


@pytest.fixture
def paths(tmp_path):
    found = Paths.find(str(tmp_path), {})
    found.state_dir.mkdir()
    found.runtime_dir.mkdir()
    return found


def test_directories_that_others_could_write_are_closed_to_them(paths, caplog):
    paths.state_dir.chmod(0o777)
    secure_directories(paths)
    assert stat.S_IMODE(paths.state_dir.stat().st_mode) == 0o755
    assert "(mode 0777)" in caplog.text
    secure_directories(Paths.find(str(paths.root / "elsewhere"), {}))  # nothing is there yet


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_the_state_of_somebody_else_is_not_used(paths):
    os.chown(paths.state_dir, 60_001, 60_001)
    with pytest.raises(UntrustedOwner, match="belongs to uid 60001, not to root"):
        secure_directories(paths)
    secure_directories(Paths.find(str(paths.root), {"OSTLER_TRUST_OWNER": "1"}))


def test_what_is_no_directory_keeps_its_mode_and_is_reported_by_who_opens_it(tmp_path):
    paths = Paths.find(str(tmp_path), {})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").chmod(0o666)
    paths.state_dir.symlink_to("pipe")
    paths.runtime_dir.symlink_to("pipe")
    secure_directories(paths)
    assert stat.S_IMODE((tmp_path / "pipe").stat().st_mode) == 0o666
    with pytest.raises(OstlerError, match="cannot be opened: Not a directory"):
        make_state_directory(paths.state_dir)
    with pytest.raises(OstlerError, match=r"cannot create the socket directory .*: Not a directory"):
        make_runtime_directory(paths.runtime_dir)


def test_a_directory_that_all_users_share_is_left_alone_and_not_used(paths):
    paths.state_dir.chmod(0o1777)
    with pytest.raises(UntrustedOwner, match="is writable by everyone"):
        secure_directories(paths)
    assert stat.S_IMODE(paths.state_dir.stat().st_mode) == 0o1777


def test_directories_that_are_loops_of_links_are_left_to_who_opens_them(tmp_path):
    looped = Paths.find(str(tmp_path), {})
    for directory in (looped.state_dir, looped.runtime_dir):
        directory.symlink_to(directory.name)
    secure_directories(looped)
    with pytest.raises(OstlerError, match="cannot be opened: Not a directory"):
        make_state_directory(looped.state_dir)
