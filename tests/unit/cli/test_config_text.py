from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from ostler.cli.config_text import config_toml, split_path
from ostler.config.layers import dotted
from ostler.printable import printable_lines
from ostler.types import OptionValue

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT.filter(lambda text: text != "***"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def option(path: str, value: object, origin: str = "default") -> OptionValue:
    return OptionValue(path=path, value=value, origin=origin)  # type: ignore[arg-type]


@given(st.dictionaries(st.tuples(TEXT, TEXT), VALUES, max_size=5))
def test_whatever_the_values_are_the_document_has_them(values: dict[tuple[str, str], object]) -> None:
    text = config_toml([option(dotted(path), value) for path, value in values.items()])
    expected: dict[str, dict[str, object]] = {}
    for (table, name), value in values.items():
        expected.setdefault(table, {})[name] = value
    assert tomllib.loads(text) == expected


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_a_path_has_the_parts_that_it_was_made_of(parts: list[str]) -> None:
    assert split_path(dotted(parts)) == parts


def test_what_toml_cannot_hold_is_a_comment() -> None:
    text = config_toml([option("a.secret", "***", "/f:1:1"), option("a.unset", None), option("a.some", {"x": None})])
    assert tomllib.loads(text) == {"a": {"some": {}}}
    assert '# secret = "***"  # /f:1:1; masked' in text


def test_tables_between_others_have_one_header_and_bare_keys_come_first() -> None:
    values = [option("a.x", 1), option("a.b.y", 2), option("a.z", 3), option("top", 4)]
    assert tomllib.loads(config_toml(values)) == {"top": 4, "a": {"x": 1, "z": 3, "b": {"y": 2}}}
    assert config_toml(values).startswith("top = 4")


def test_an_origin_cannot_begin_a_line_of_its_own() -> None:
    text = printable_lines(config_toml([option("a.x", 1, "/etc/a\nb.toml:1:1")]))
    assert tomllib.loads(text) == {"a": {"x": 1}}
