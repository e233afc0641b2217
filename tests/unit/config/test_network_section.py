import pytest

from ostler.config import load_text, validate
from ostler.config.network_section import is_curve_key
from ostler.errors import ConfigurationError

KEY = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
OTHER = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def problems(text):
    with pytest.raises(ConfigurationError) as caught:
        validate(load_text(text), {}, {})
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{OTHER}\n")
    return f'secret_key = {{file = "{file}"}}'


def test_a_key_is_thirty_two_bytes_in_z85():
    assert is_curve_key(KEY)
    assert not is_curve_key(KEY[:-1])
    assert not is_curve_key("#" * 40), "each five characters are four bytes, and these are more"
    assert not is_curve_key(KEY[:-1] + "é")


def test_nothing_listens_by_default():
    options = validate(load_text(""), {}, {}).network
    assert (options.rpc, options.keys, options.peers) == ("", {}, {})


def test_names_have_a_key_or_several_and_peers_are_found_by_them(secret):
    text = f'[network]\nrpc = "tcp://*:7890"\n{secret}\n[network.keys]\nnode2 = "{KEY}"\nnode3 = []\n'
    text += f'ops = ["{OTHER}"]\n[network.peers.node2]\nrpc = "tcp://[fd00::2]:7890"\n'
    options = validate(load_text(text), {}, {}).network
    assert options.names_by_key() == {KEY: "node2", OTHER: "ops"}
    assert options.public_keys("node2") == [KEY]
    assert options.secret_key.get_secret_value() == OTHER


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[network]\nrpc = "tcp://0.0.0.0:7890"', "2:7: network.rpc: needs a `secret_key`"),
        ('[network]\nrpc = "udp://0.0.0.0:1"', '2:7: network.rpc: expected an address such as "tcp://0.0.0.0:7890"'),
        ('[network]\nevents = "tcp://0.0.0.0:7891"', "2:10: network.events: needs `rpc` as well"),
        ('[network.keys]\nnode2 = "abc"', "2:9: network.keys.node2: expected a public key of 40 characters"),
        (f'[network.keys]\na = "{KEY}"\nb = ["{KEY}"]', "network.keys: a and b have the same key"),
        ('[network.peers.node2]\nrpc = "tcp://node2:7890"', "network.peers: node2 has no public key"),
        ('[network.peers.node2]\nrpc = "tcp://node2"', "2:7: network.peers.node2.rpc: expected an address such as"),
        ("[network.peers.node2]\n", 'missing required key "rpc" in [network.peers.node2]'),
        ('[access]\nviewer = ["key:"]', 'a key ("key:node2")'),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, said):
    assert any(said in problem for problem in problems(text)), problems(text)


def test_a_secret_that_is_no_key_is_refused_without_being_shown(tmp_path):
    file = tmp_path / "key"
    file.write_text("hush")
    (said,) = problems(f'[network]\nsecret_key = {{file = "{file}"}}')
    assert said.endswith("network.secret_key: expected a secret key of 40 characters, as created by `ostler keys new`")
    assert "hush" not in said


def test_offline_nobody_looks_whether_a_credential_is_there():
    text = '[network]\nrpc = "tcp://*:7890"\nsecret_key = {credential = "nothing"}'
    assert validate(load_text(text), {}, {}, offline=True).network.rpc == "tcp://*:7890"
