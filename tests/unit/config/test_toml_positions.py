import json

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from ostler.config.toml_positions import LimitExceeded, TextPosition, key_positions


def paths_of(node, path=()):
    """Every path through what tomli read: keys, and numbers of items."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = set()
    for key, value in items:
        found |= {(*path, key)} | paths_of(value, (*path, key))
    return found


def place(text, *path):
    return tuple(key_positions(text)[path])


def test_a_key_stands_where_its_own_part_begins():
    text = "a = 1\n  b.c . d= 2\n"
    assert place(text, "a") == (1, 1)
    assert place(text, "b") == (2, 3)
    assert place(text, "b", "c") == (2, 5)
    assert place(text, "b", "c", "d") == (2, 9)


def test_a_table_stands_at_its_header_even_when_it_is_mentioned_before():
    text = "[a.b]\nx = 1\n[a]\ny = 2\n"
    assert place(text, "a", "b") == (1, 1)
    assert place(text, "a") == (3, 1)
    assert place(text, "a", "y") == (4, 1)


def test_keys_may_be_quoted_and_hold_dots():
    text = 'log.levels."ostler.rpc" = "x"\n\'a b\' = 1\n"\\u0041" = 2\n'
    assert place(text, "log", "levels", "ostler.rpc") == (1, 12)
    assert place(text, "a b") == (2, 1)
    assert place(text, "A") == (3, 1)


def test_strings_of_several_lines_do_not_confuse_the_count():
    text = 'a = """\n[no]\nb = 1 \\" """\nc = \'\'\'\n# "no"\'\'\'\'\'\nd = 1 # [no]\n'
    assert set(key_positions(text)) == {("a",), ("c",), ("d",)}
    assert place(text, "d") == (6, 1)


def test_items_of_lists_and_inline_tables_have_places():
    text = 'a = [\n  1, # one\n  "]", {x = [2], y.z = "}"},\n]\n'
    assert place(text, "a", 1) == (3, 3)
    assert place(text, "a", 2) == (3, 8)
    assert place(text, "a", 2, "x", 0) == (3, 14)
    assert place(text, "a", 2, "y", "z") == (3, 20)


def test_arrays_of_tables_are_counted():
    text = "[[a]]\nx = 1\n[[a.b]]\n[a.b.c]\ny = 2\n[[a]]\nx = 3\n"
    assert set(key_positions(text)) == paths_of(tomli.loads(text))
    assert place(text, "a", 0, "b", 0, "c", "y") == (5, 1)
    assert place(text, "a", 1) == (6, 1)
    assert place(text, "a", 1, "x") == (7, 1)


def test_columns_are_characters_and_lines_may_end_as_on_windows():
    text = 'ä = "ö"\r\n"ü" = 1\r\nx = {"é" = 2}\r\n'.replace("ä", '"ä"')
    assert place(text, "ü") == (2, 1)
    assert place(text, "x", "é") == (3, 6)


@pytest.mark.parametrize(
    "text", ["a", "a =", "[a", "a = [1", 'a = "', "= 1", "[[a]", "{", "a = {b", '"\\z" = 1', "a = 'x\n'"]
)
def test_a_text_that_is_no_toml_gives_what_was_found_so_far(text):
    assert ("ok",) in key_positions(f"ok = 1\n{text}")


@pytest.mark.parametrize(
    "text", ["a" + ".a" * 30_000 + " = 1", "[a" + ".a" * 30_000 + "]", "b = " + "[" * 100_000, "b = " + "{a=" * 9_000]
)
def test_what_is_nested_too_deeply_is_refused_at_once_with_its_place(text):
    with pytest.raises(LimitExceeded, match="nested too deeply: a key has at most 32 parts") as caught:
        key_positions(f"c = 1\n{text}\n")
    assert caught.value.position.line == 2
    assert caught.value.position.column > 30


def test_more_keys_than_a_configuration_has_are_refused():
    with pytest.raises(LimitExceeded, match="more than 10000 keys") as caught:
        key_positions("\n".join(f"k{number} = 1" for number in range(30_000)))
    assert caught.value.position == TextPosition(10_001, 1)


@given(st.text(alphabet="ab.\"'[]{}=#,\\ \n\t1", max_size=60))
def test_no_text_raises_and_every_place_lies_within_it(text):
    lines = text.split("\n")
    for position in key_positions(text).values():
        assert 1 <= position.line <= len(lines)
        assert 1 <= position.column <= len(lines[position.line - 1]) + 1


@given(st.text(alphabet="ab.\"'[]{}=#,\n1 ", max_size=40))
def test_whatever_tomli_accepts_has_the_same_keys(text):
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    assert set(key_positions(text)) == paths_of(data)


names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
leaves = st.one_of(
    st.booleans(), st.integers(-99, 99), st.floats(allow_nan=False), st.text(max_size=8), st.dates(), st.datetimes()
)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
documents = st.dictionaries(names, values, max_size=5)


class TomlWriter:
    """Writes data as TOML in one of its many ways, chosen at random."""

    def __init__(self, draw):
        self.draw = draw
        self.lines = []

    def choose(self, *choices):
        return self.draw(st.sampled_from(choices))

    def space(self):
        return self.choose("", " ", "\t")

    def key(self, name):
        if name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name) and self.choose(True, False):
            return name
        return self.text(name)

    def text(self, text):
        literal = "'" not in text and text.isprintable()
        return (
            f"'{text}'"
            if literal and self.choose(True, False)
            else json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        )

    def value(self, value):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            long = (
                '"""\n'
                + json.dumps(value, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")
                + self.choose('"""', '\\"""""')
            )
            return self.choose(self.text(value), long)
        if isinstance(value, list):
            gap = self.choose("", " ", "\n  ", " # [x]\n")
            return f"[{gap}" + f",{gap}".join(self.value(item) + self.space() for item in value) + f"{gap}]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self.key(k)} = {self.value(v)}" for k, v in value.items()) + "}"
        return value.isoformat() if hasattr(value, "isoformat") else repr(value)

    def entries(self, data, prefix=""):
        for name, value in data.items():
            if isinstance(value, dict) and value and self.choose(True, False):
                self.entries(value, f"{prefix}{self.key(name)}{self.space()}.{self.space()}")
            else:
                self.lines.append(
                    f"{self.space()}{prefix}{self.key(name)}{self.space()}={self.space()}{self.value(value)}"
                )

    def document(self, data):
        tables = {name: value for name, value in data.items() if isinstance(value, dict) and self.choose(True, False)}
        self.entries({name: value for name, value in data.items() if name not in tables})
        for name, value in tables.items():
            self.lines.append(f"{self.space()}[{self.space()}{self.key(name)}{self.space()}] # [x] = 1")
            self.entries(value)
        return self.choose("\n", "\r\n", "\n\n# x\n").join(self.lines)


@given(st.data())
def test_keys_are_those_that_tomli_reads_however_they_are_written(data):
    text = TomlWriter(data.draw).document(data.draw(documents))
    assert set(key_positions(text)) == paths_of(tomli.loads(text))
