"""JSON within bounds."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.cli.http_client.decoding import decode_json
from ostler.errors import MessageTooLarge

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def count(value):
    if isinstance(value, dict):
        return 1 + sum(1 + count(item) for item in value.values())
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


@given(VALUES)
def test_whatever_fits_is_decoded(value):
    assert decode_json(msgspec.json.encode(value), None, "lamp.show") == value


@given(VALUES, st.integers(1, 20))
def test_no_more_elements_than_the_limit_are_decoded(value, limit):
    try:
        found = decode_json(msgspec.json.encode(value), None, "lamp.show", limit=limit)
    except MessageTooLarge:
        assert count(value) > limit
    else:
        assert found == value
        assert count(value) <= limit


def test_signs_in_texts_are_not_counted():
    text = ',[{:\\"' * 1000
    assert decode_json(msgspec.json.encode([text]), None, "lamp.show", limit=100) == [text]
    with pytest.raises(MessageTooLarge):
        decode_json(msgspec.json.encode([text] * 200), None, "lamp.show", limit=100)
