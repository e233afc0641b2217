import json
import sys
import unicodedata

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ostler.printable import printable, printable_json, printable_lines

SEEN = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2"
HOSTILE = [
    chr(code)
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and chr(code) not in SEEN
]


def unsafe_in(text, but=""):
    return [char for char in text if char in HOSTILE_SET and char not in but]


HOSTILE_SET = set(HOSTILE)


def test_every_character_that_acts_or_cannot_be_seen_is_escaped():
    assert [char for char in HOSTILE if printable(char) == char] == []
    assert unsafe_in(printable("".join(HOSTILE))) == []
    assert [char for char in "\u115f\u1160\u3164\uffa0\u034f\U000e01ef\U000e0fff" if printable(char) == char] == []


def test_escapes_read_as_what_they_stand_for():
    assert printable("a\x1b[31m\n\r\t\x7f\x9b\u202e\u2028\U000e0041\ud800") == (
        "a\\x1b[31m\\n\\r\\t\\x7f\\x9b\\u202e\\u2028\\U000e0041\\ud800"
    )


def test_ordinary_texts_of_all_languages_stay_as_they_are():
    for text in (
        "volume a-1",
        "Größe",
        "火山 ガス",
        "שלום",
        "مرحبا ٣",
        "é e\u0301",
        "❤\ufe0f 🙂",
        "a\u00a0b",
        "\ufffd",
        SEEN,
    ):
        assert printable(text) == text
        assert printable_lines(text) == text


@given(st.text(alphabet=st.characters() | st.sampled_from(HOSTILE)))
def test_no_text_brings_anything_hostile_through(text):
    assert unsafe_in(printable(text)) == []
    assert unsafe_in(printable_lines(text), but="\n\t") == []
    assert len(printable(text).splitlines()) <= 1


def test_a_text_that_is_too_long_is_cut_and_says_so():
    assert printable("x" * 30, 10) == "x" * 10 + "… (30 characters)"
    assert printable("x" * 10, 10) == "x" * 10


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u202e\x9b\x7f\n\u2028\U000e0041")))
def test_json_keeps_its_meaning_and_shows_nothing_hostile(text):
    document = msgspec.json.format(msgspec.json.encode({text: [text]})).decode()
    for safe in (printable_json(document), printable_json(document, ascii_only=True)):
        assert unsafe_in(safe, but="\n") == []
        assert json.loads(safe) == {text: [text]}
    assert printable_json(document, ascii_only=True).isascii()


def test_half_of_a_pair_is_escaped_in_json():
    assert json.loads(printable_json('"\ud800\u202e"')) == "\ud800\u202e"
    assert printable_json('"\ud800"') == '"\\ud800"'
