import pytest

from ostler.errors import InvalidInput
from ostler.messaging.tcp.curve import KeyPair, check_public_key, generate_keys, keys_from_secret


def test_the_public_key_belongs_to_the_secret_one():
    keys = generate_keys()
    assert keys_from_secret(keys.secret) == keys
    assert generate_keys() != keys


def test_a_secret_key_is_not_shown_with_its_pair():
    assert "***" in repr(KeyPair("a", "b"))
    assert generate_keys().secret not in repr(generate_keys())


@pytest.mark.parametrize("text", ["", "short", "é" * 40, "#" * 40, " " * 40, "a" * 41])
def test_what_is_no_key_is_refused_by_name(text):
    with pytest.raises(InvalidInput, match="the public key of node2 is not a valid key"):
        check_public_key(text, "node2")
    with pytest.raises(InvalidInput, match="the secret key is not a valid key"):
        keys_from_secret(text)
