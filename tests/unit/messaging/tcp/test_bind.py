import pytest

from ostler.errors import Conflict, InvalidInput, MessagingError
from ostler.messaging.tcp.bind import BoundPort, HostPort, next_port, parse_tcp_address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tcp://0.0.0.0:7890", HostPort("0.0.0.0", 7890)),
        ("tcp://*:7890", HostPort("", 7890)),
        ("tcp://node2.example:1", HostPort("node2.example", 1)),
        ("tcp://[fd00::2]:7890", HostPort("fd00::2", 7890)),
    ],
)
def test_an_address_is_taken_apart(text, found):
    assert parse_tcp_address(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "tcp://", "tcp://node2", "tcp://:1", "tcp://a:b", "tcp://a:70000", "ipc:///x", "tcp://::1:5", "tcp://a/b:1"],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidInput, match="is not a valid network address"):
        parse_tcp_address(text)


def test_events_are_at_the_next_port():
    assert next_port("tcp://[::1]:7890") == "tcp://[::1]:7891"
    assert next_port("tcp://127.0.0.1:0") == "tcp://127.0.0.1:0"


def test_a_port_that_is_taken_is_a_conflict_and_one_that_is_not_ours_an_error():
    port = BoundPort("tcp://127.0.0.1:0")
    with pytest.raises(Conflict, match="is already in use"):
        BoundPort(port.address)
    with pytest.raises(MessagingError, match="cannot listen on"):
        BoundPort("tcp://192.0.2.1:0")
    port.unlink()
    port.unlink()
    BoundPort(port.address).unlink()
