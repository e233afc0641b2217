"""Sockets that systemd opened."""

import os
import subprocess
import sys

import pytest

from ostler.errors import ServiceError
from ostler.systemd import listen_fds


@pytest.fixture
def opened():
    """Two descriptors in a row, 200 and 201."""
    low = os.open("/dev/null", os.O_RDONLY)
    pair = [os.dup2(low, number) for number in (200, 201)]
    yield pair
    for descriptor in (low, *pair):
        os.close(descriptor)


def environment(count, names, pid=7):
    return {"LISTEN_FDS": str(count), "LISTEN_PID": str(pid), "LISTEN_FDNAMES": names, "PATH": "/bin"}


def test_descriptors_come_by_name_and_are_closed_on_exec(opened):
    assert listen_fds(environment(2, "rpc:events"), pid=7, first=200) == {"rpc": 200, "events": 201}
    assert not any(map(os.get_inheritable, opened))


def test_the_variables_are_taken_out_of_the_environment(opened):
    environ = environment(2, "rpc:events")
    listen_fds(environ, pid=7, first=200)
    assert environ == {"PATH": "/bin"}


def test_descriptors_for_another_process_are_left_alone(opened):
    environ = environment(2, "rpc:events", pid=8)
    assert listen_fds(environ, pid=7, first=200) == {}
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("names", ["", ":", "rpc"])
def test_a_descriptor_without_a_name_is_unknown(opened, names):
    found = listen_fds(environment(2, names), pid=7, first=200)
    assert sorted(found.values()) == [200, 201]
    assert "unknown" in found


def test_several_of_one_name_are_numbered(opened):
    assert listen_fds(environment(2, "rpc:rpc"), pid=7, first=200) == {"rpc": 200, "rpc-2": 201}


def test_without_socket_activation_there_are_none():
    assert listen_fds({}) == {}
    assert listen_fds({"LISTEN_FDS": "two", "LISTEN_PID": "7"}, pid=7) == {}


def test_a_descriptor_that_is_promised_and_not_open_is_named(opened):
    with pytest.raises(ServiceError, match=r"'third' as descriptor 202"):
        listen_fds(environment(3, "rpc:events:third"), pid=7, first=200)


def test_a_real_process_gets_them_from_three_on():
    code = (
        "import os; os.environ['LISTEN_PID'] = str(os.getpid());"
        "from ostler.systemd import listen_fds; print(listen_fds(os.environ), os.get_inheritable(3))"
    )
    script = 'exec 3</dev/null; LISTEN_FDS=1 LISTEN_FDNAMES=rpc exec "$0" -c "$1"'
    run = subprocess.run(["sh", "-c", script, sys.executable, code], capture_output=True, text=True, check=True)
    assert run.stdout == "{'rpc': 3} False\n"
