import os
import socket
import stat
import threading

import pytest

from ostler.errors import Conflict, DaemonNotRunning, InvalidInput, MessagingError, NotPermitted
from ostler.messaging.unix.bind import BoundUnixSocket, socket_path
from ostler.messaging.unix.sync_link import connect


@pytest.fixture
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "rpc.sock"


def probe(address):
    connect(address).close()


def listening(path):
    bound = BoundUnixSocket(path, 0o600)
    return bound, socket.socket(fileno=bound.detach())


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode_is_the_one_that_is_asked_for_whatever_the_umask(path, mode):
    bound = BoundUnixSocket(path, mode)
    os.close(bound.detach())
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_it_can_be_connected_to_and_is_removed_at_the_end(path):
    bound, server = listening(path)
    probe(f"ipc://{path}")
    server.close()
    bound.unlink()
    assert not path.exists()
    bound.unlink()


@pytest.mark.failure_mode("Machine", "a socket left over from a dead daemon, and one of a living daemon")
def test_a_socket_left_over_from_a_dead_daemon(path):
    _, dead = listening(path)
    dead.close()
    assert path.exists()
    with pytest.raises(DaemonNotRunning, match="nothing listens"):
        probe(f"ipc://{path}")
    bound, server = listening(path)
    probe(f"ipc://{path}")
    server.close()
    bound.unlink()


@pytest.mark.failure_mode("Machine", "a socket left over from a dead daemon, and one of a living daemon")
def test_a_socket_of_a_living_daemon(path):
    bound, server = listening(path)
    with pytest.raises(Conflict, match="another daemon already listens") as caught:
        BoundUnixSocket(path, 0o600)
    assert "--root" in caught.value.hint
    probe(f"ipc://{path}")
    server.close()
    bound.unlink()


@pytest.mark.failure_mode("State", "long drain while a successor starts")
def test_the_socket_of_a_successor_is_left_alone(path):
    bound, server = listening(path)
    server.close()
    path.with_name("old").hardlink_to(path)  # so that the successor does not get the same inode
    path.unlink()
    successor, second = listening(path)
    bound.unlink()
    assert path.exists()
    second.close()
    successor.unlink()


def test_of_many_that_start_at_once_one_gets_it(path):
    _, dead = listening(path)
    dead.close()
    barrier = threading.Barrier(8)
    won, lost = [], []

    def start():
        barrier.wait()
        try:
            won.append(listening(path))
        except Conflict:
            lost.append(1)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    probe(f"ipc://{path}")
    won[0][1].close()
    won[0][0].unlink()


def test_something_else_in_the_place_is_not_removed(path):
    path.write_text("precious")
    with pytest.raises(Conflict, match="is not a socket"):
        BoundUnixSocket(path, 0o600)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_named(path):
    with pytest.raises(MessagingError, match="check that its directory exists"):
        BoundUnixSocket(path.parent / "missing" / "rpc.sock", 0o600)


@pytest.mark.failure_mode("Machine", "a read-only runtime directory")
@pytest.mark.usefixtures("modes_count")
def test_a_read_only_runtime_directory(path):
    path.parent.chmod(0o500)
    with pytest.raises(NotPermitted, match="make the directory writable"):
        BoundUnixSocket(path, 0o600)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5", "ipc://relative", "/run/x.sock", "", "ipc:///" + "x" * 110])
def test_addresses_that_cannot_be_used_are_refused(address):
    with pytest.raises(InvalidInput):
        socket_path(address)


def test_nobody_there_says_how_to_start_it(path):
    with pytest.raises(DaemonNotRunning) as caught:
        probe(f"ipc://{path}")
    assert "ostler run" in caught.value.hint
    assert caught.value.exit_code == 3
