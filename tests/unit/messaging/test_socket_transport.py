import pytest

from ostler import Client
from ostler.errors import InvalidInput, NotPermitted
from ostler.messaging.socket_transport import transport_to
from ostler.messaging.tcp.curve import generate_keys


def test_events_are_beside_calls(tmp_path):
    assert transport_to(f"ipc://{tmp_path}/rpc.sock", None, 5000).events == f"ipc://{tmp_path}/events.sock"
    keys = generate_keys()
    found = transport_to("tcp://node2:7890", None, 5000, keys.public, keys.secret)
    assert (found.rpc, found.events) == ("tcp://node2:7890", "tcp://node2:7891")


def test_the_secret_key_may_be_in_a_file(tmp_path):
    keys = generate_keys()
    (tmp_path / "key").write_text(f"{keys.secret}\n")
    assert transport_to("tcp://a:1", None, 5000, keys.public, tmp_path / "key").curve.key_pair == keys
    with pytest.raises(InvalidInput, match=r"the secret key .* cannot be read"):
        transport_to("tcp://a:1", None, 5000, keys.public, tmp_path / "nothing")


def test_a_secret_key_that_may_not_be_read_is_said_so(tmp_path, modes_count):
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0)
    with pytest.raises(NotPermitted, match="cannot be read"):
        transport_to("tcp://a:1", None, 5000, generate_keys().public, tmp_path / "key")


@pytest.mark.parametrize("keys", [{}, {"server_key": "x"}, {"secret_key": "x"}])
def test_nobody_talks_over_a_network_without_keys(keys):
    with pytest.raises(InvalidInput, match="which requires keys"):
        Client("tcp://node2:7890", **keys)


def test_keys_are_not_for_unix_sockets(tmp_path):
    with pytest.raises(InvalidInput, match="keys apply to network addresses only"):
        Client(f"ipc://{tmp_path}/rpc.sock", server_key=generate_keys().public)
