"""Who listens on a unix socket is asked of the kernel before anything is said."""

from __future__ import annotations

import os
import socket

import pytest

from ostler.errors import DaemonNotRunning, NotPermitted
from ostler.messaging.unix.sync_link import connect

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")]
SOMEBODY = 60_001


@pytest.fixture
def listening(tmp_path):
    """Return a function that has a user listen in a directory of another."""
    opened = []

    def listen(uid, owner):
        path = tmp_path / "rpc.sock"
        opened.append(socket.socket(socket.AF_UNIX))
        opened[-1].bind(str(path))
        os.chown(tmp_path, owner, owner)
        os.seteuid(uid)  # the kernel keeps who listens
        try:
            opened[-1].listen()
        finally:
            os.seteuid(0)
        return f"ipc://{path}"

    yield listen
    for each in opened:
        each.close()


@pytest.mark.parametrize(("uid", "owner"), [(0, 0), (0, SOMEBODY), (SOMEBODY, SOMEBODY)])
def test_root_and_the_owner_of_the_directory_may_listen(listening, uid, owner):
    # Passing is the assertion: whoever else listens is refused with an error.
    connect(listening(uid, owner)).close()


def test_somebody_who_listens_in_a_directory_of_another_is_told_nothing(listening):
    with pytest.raises(NotPermitted, match="is served by uid 60001, which does not own its directory"):
        connect(listening(SOMEBODY, 60_002))


def test_nobody_listens(tmp_path):
    with pytest.raises(DaemonNotRunning):
        connect(f"ipc://{tmp_path}/rpc.sock")
