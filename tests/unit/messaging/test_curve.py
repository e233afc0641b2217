import pytest

from ostler.errors import InvalidInput
from ostler.messaging.zmq.curve import Keys, check_public, keys_of, new_keys


def test_the_public_key_belongs_to_the_secret_one():
    keys = new_keys()
    assert keys_of(keys.secret) == keys
    assert new_keys() != keys


def test_a_secret_key_is_not_shown_with_its_pair():
    assert "***" in repr(Keys("a", "b"))
    assert new_keys().secret not in repr(new_keys())


@pytest.mark.parametrize("text", ["", "short", "é" * 40, "#" * 40, " " * 40, "a" * 41])
def test_what_is_no_key_is_refused_by_name(text):
    with pytest.raises(InvalidInput, match="the public key of node2 is no key"):
        check_public(text, "node2")
    with pytest.raises(InvalidInput, match="the secret key is no key"):
        keys_of(text)
