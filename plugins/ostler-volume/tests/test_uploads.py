"""Volumes whose content their callers hand over."""

from __future__ import annotations

import os

import pytest

from ostler import Busy, Context, InvalidInput, NoCapacity
from ostler.types import Peer
from ostler_volume.errors import AlreadyExists, BadImage, BadSize, UploadNotFound
from ostler_volume.uploads import MAX_PIECE_SIZE, MAX_UPLOADS_PER_CALLER

MIB = 2**20


@pytest.fixture
def caller():
    return Context("volume", "upload", peer=Peer(uid=1000, name="uid 1000"))


@pytest.fixture
def other():
    return Context("volume", "upload", peer=Peer(uid=1001, name="uid 1001"))


def test_a_volume_is_made_of_what_was_handed_over(manager, caller, folder, client):
    begun = manager.begin_upload(caller, "a", 2 * MIB + 10, label="disk.raw\x1b")
    assert (begun.name, begun.size, begun.backend, begun.piece) == ("a", 2 * MIB + 512, "local", MAX_PIECE_SIZE)
    assert manager.records.volume("a").state == "creating"
    data = os.urandom(2 * MIB + 10)
    for at in range(0, len(data), MAX_PIECE_SIZE):
        manager.upload_piece(caller, begun.id, at, data[at : at + MAX_PIECE_SIZE])
    made = manager.finish_upload(caller, begun.id)
    assert (made.state, made.source) == ("available", "upload:disk.raw?")
    assert (folder / "volumes" / "a").read_bytes() == data + bytes(502)
    assert client.events[-1][0] == "created"
    with pytest.raises(UploadNotFound):
        manager.finish_upload(caller, begun.id)


def test_nobody_else_can_write_finish_or_cancel_an_upload(manager, caller, other):
    begun = manager.begin_upload(caller, "a", 100)
    for attempt in (
        lambda: manager.upload_piece(other, begun.id, 0, b"x"),
        lambda: manager.finish_upload(other, begun.id),
        lambda: manager.cancel_upload(other, begun.id),
    ):
        with pytest.raises(UploadNotFound):
            attempt()
    manager.finish_upload(caller, begun.id)


def test_what_is_given_up_leaves_nothing(manager, caller, nothing_left, files):
    before = files()
    begun = manager.begin_upload(caller, "a", MIB)
    manager.upload_piece(caller, begun.id, 0, b"x")
    manager.cancel_upload(caller, begun.id)
    assert manager.records.volumes() == []
    assert files() == before
    manager.create_volume(caller, "a", MIB)


def test_an_upload_whose_caller_has_left_is_given_up_after_a_while(manager, caller, files):
    idle = manager.begin_upload(caller, "idle", MIB)
    busy = manager.begin_upload(caller, "busy", MIB)
    manager.clock.advance(50)
    manager.upload_piece(caller, busy.id, 0, b"x")
    manager.clock.advance(50)
    manager.expire_uploads(caller)
    assert [one.name for one in manager.records.volumes()] == ["busy"]
    with pytest.raises(UploadNotFound):
        manager.finish_upload(caller, idle.id)
    manager.cleanup_host()
    assert manager.records.volumes() == []
    assert files() == []


def test_uploads_are_bounded_by_caller(manager, caller, other):
    for number in range(MAX_UPLOADS_PER_CALLER):
        manager.begin_upload(caller, f"v{number}", 512)
    with pytest.raises(Busy, match="too many uploads: 4 of this caller"):
        manager.begin_upload(caller, "more", 512)
    manager.begin_upload(other, "theirs", 512)


def test_an_upload_that_is_refused_leaves_nothing_and_holds_no_name(manager, caller, nothing_left):
    manager.create_volume(caller, "taken", MIB)
    for arguments, error in (
        (("taken", 100), AlreadyExists),
        (("a", 0), BadSize),
        (("a", -1), BadSize),
        (("a", 2**62), NoCapacity),
        (("a", 8192, "4KiB"), BadImage),
    ):
        with nothing_left(error):
            manager.begin_upload(caller, *arguments)
    manager.finish_upload(caller, manager.begin_upload(caller, "a", 100).id)


def test_a_piece_that_is_none_is_refused(manager, caller):
    begun = manager.begin_upload(caller, "a", 3 * MIB)
    for offset, data in ((-1, b"x"), (3 * MIB, b"x"), (3 * MIB - 1, b"xx"), (0, bytes(MAX_PIECE_SIZE + 1))):
        with pytest.raises(InvalidInput, match="invalid piece"):
            manager.upload_piece(caller, begun.id, offset, data)
    with pytest.raises(BadImage, match="has the unsupported format qcow2"):
        manager.upload_piece(caller, begun.id, 0, b"QFI\xfb" + bytes(100))


def test_reconciliation_leaves_an_upload_under_way_alone_and_a_crash_leaves_nothing(
    manager, caller, store, drivers, kit
):
    begun = manager.begin_upload(caller, "a", MIB)
    manager.upload_piece(caller, begun.id, 0, b"x")
    manager.check(caller)
    assert manager.records.volume("a").state == "creating"
    after_crash = kit.manager(store, drivers)
    after_crash.driver_ready("local")
    assert after_crash.records.volumes() == []
    assert drivers["local"].inventory().partials == frozenset()
