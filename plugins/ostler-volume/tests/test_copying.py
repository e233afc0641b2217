from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostler import DriverError
from ostler_volume.copying import PIECE_SIZE, ZERO_BLOCK_SIZE, reflink, sparse_copy


def copied(source, target, length=None, on_piece=lambda _done, _total: None, **more):
    with source.open("rb") as of, target.open("w+b") as to:
        size = source.stat().st_size if length is None else length
        return sparse_copy(of.fileno(), to.fileno(), size, on_piece, **more)


def blocks(path):
    return path.stat().st_blocks * 512


KINDS = st.sampled_from(["data", "zeros", "hole", "mixed"])


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.tuples(KINDS, st.integers(1, 3 * ZERO_BLOCK_SIZE)), max_size=8),
    tail=st.integers(0, ZERO_BLOCK_SIZE),
)
def test_a_copy_equals_its_source_whatever_it_is_made_of(tmp_path, parts, tail):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for kind, size in parts:
            if kind == "hole":
                file.seek(size, os.SEEK_CUR)
            else:
                data = {"data": b"\xa5", "zeros": b"\0", "mixed": b"\0" * 700 + b"x"}[kind]
                file.write((data * size)[:size])
        file.truncate(file.tell() + tail)
    written = copied(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert written <= source.stat().st_size
    assert blocks(target) <= blocks(source) + 4096  # never more than the source takes


def test_holes_and_zeros_take_up_no_room(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(b"x" * ZERO_BLOCK_SIZE + b"\0" * 16 * ZERO_BLOCK_SIZE + b"y")
        file.truncate(64 * 2**20)
    assert copied(source, target) <= 2 * ZERO_BLOCK_SIZE
    assert target.stat().st_size == 64 * 2**20
    assert blocks(target) <= 3 * ZERO_BLOCK_SIZE


def test_progress_counts_data_and_not_holes(tmp_path):
    source, told = tmp_path / "source", []
    with source.open("wb") as file:
        file.seek(256 * 2**20)
        file.write(b"x" * (2 * PIECE_SIZE + 4096))
    copied(source, tmp_path / "target", on_piece=lambda done, total: told.append((done, total)))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] <= 3 * PIECE_SIZE
    assert len(told) >= 4
    assert told == sorted(told)


def test_a_copy_stops_when_the_callback_raises(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 2 * PIECE_SIZE)

    def stop(done, _total):
        if done:
            raise KeyError

    with pytest.raises(KeyError):
        copied(source, tmp_path / "target", on_piece=stop)


def test_a_source_that_shrinks_is_an_error_and_no_short_copy(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3 * PIECE_SIZE)

    def shrink(done, _total):
        if done == PIECE_SIZE:
            os.truncate(source, PIECE_SIZE)

    with pytest.raises(DriverError, match="ended at byte"):
        copied(source, tmp_path / "target", on_piece=shrink)


def test_data_goes_to_the_disk_as_it_comes(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)  # what is counted is the system call
    (tmp_path / "source").write_bytes(b"x" * 3 * PIECE_SIZE)
    copied(tmp_path / "source", tmp_path / "target", sync_interval=PIECE_SIZE)
    assert len(synced) == 3


def test_only_the_length_that_was_asked_for_is_copied(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 10_000)
    copied(tmp_path / "source", tmp_path / "target", 777)
    assert (tmp_path / "target").read_bytes() == b"x" * 777


def test_reflink_says_no_where_blocks_cannot_be_shared(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 4096)
    other = os.memfd_create("ostler-test")  # on a file system of its own
    with (tmp_path / "source").open("rb") as of, os.fdopen(other, "w+b") as to:
        assert reflink(of.fileno(), to.fileno()) is False


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_reflink_shares_blocks_where_the_file_system_can(mounted, kind):
    place = mounted(kind)
    source, target = place / "source", place / "target"
    source.write_bytes(os.urandom(8 * 2**20))
    with source.open("rb") as of, target.open("w+b") as to:
        os.fsync(of.fileno())
        before = os.statvfs(place).f_bavail
        assert reflink(of.fileno(), to.fileno()) is True
        os.fsync(to.fileno())
        shared = (before - os.statvfs(place).f_bavail) * os.statvfs(place).f_frsize
    assert target.read_bytes() == source.read_bytes()
    assert shared < 2 * 2**20
