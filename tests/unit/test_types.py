from ostler.types import LOCAL_PEER, Peer


def test_account_of_a_local_peer_is_its_uid_whatever_its_process() -> None:
    assert Peer(1000, 1000, 7, "uid 1000").account == Peer(1000, 100, 8, "uid 1000").account == 1000


def test_account_of_root_is_not_that_of_nobody() -> None:
    assert Peer(0, 0, 1, "uid 0").account == 0


def test_account_of_a_peer_on_the_network_is_its_key() -> None:
    assert Peer(name="key:node2", key="k" * 40).account == "k" * 40


def test_account_of_the_daemon_itself_is_apart() -> None:
    assert LOCAL_PEER.account == "local"
    assert Peer(name="local").account == "unknown"
