from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from ostler.config import Field, OptionsModel, Seconds, Secret, Size
from ostler.config.options import Expects
from ostler.config.type_descriptions import ConstrainedType, describe_type, format_value, type_of_field, type_of_item


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(OptionsModel):
    depth: int = Field(1, help="")


class Options(OptionsModel):
    a_count: int = Field(1, ge=1, le=9, help="")
    b_part: float = Field(0.5, gt=0, lt=1, help="")
    c_wait: Seconds | None = Field(None, ge=1.5, help="")
    d_room: Size = Field(0, le=2**30, help="")
    e_one: Literal["x"] = Field("x", help="")
    f_colour: Colour = Field(Colour.RED, help="")
    g_names: list[Annotated[str, Expects("a name")]] = Field([], min_length=2, help="")
    h_text: str = Field("", max_length=5, min_length=1, help="")
    i_path: Path = Field("/", help="")
    j_secret: Secret = Field("", help="")
    k_inner: Inner = Field(Inner(), help="")
    l_either: int | Literal["auto"] | list[int] = Field("auto", help="")
    m_any: Any = Field(None, help="")
    n_words: str = Field("", expects="a colour", help="")
    o_switch: bool = Field(False, help="")
    p_pattern: str = Field("", pattern="^a", help="")
    q_table: dict[str, int] = Field({}, help="")
    r_least: int = Field(0, ge=-5, help="")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_count", "a whole number from 1 to 9"),
        ("b_part", "a number above 0 and below 1"),
        ("c_wait", 'a time span of at least 1.5s (such as 30, "30s" or "5min")'),
        ("d_room", 'a size of at most 1GiB (such as "10GiB" or 4096)'),
        ("e_one", '"x"'),
        ("f_colour", 'one of "red", "blue"'),
        ("g_names", "a list of at least 2, each item a name"),
        ("h_text", "text that is not empty, of at most 5 characters"),
        ("i_path", "a path"),
        ("j_secret", 'a secret: {credential = "name"} or {file = "/path"}'),
        ("k_inner", "a table"),
        ("l_either", 'a whole number or "auto" or a list, each item a whole number'),
        ("m_any", "any value"),
        ("n_words", "a colour"),
        ("o_switch", "true or false"),
        ("p_pattern", "text that matches ^a"),
        ("q_table", "a table"),
        ("r_least", "a whole number of at least -5"),
    ],
)
def test_what_a_value_must_be_is_said_in_words(name, words):
    assert describe_type(type_of_field(Options.model_fields[name])) == words


def test_examples_can_be_left_out():
    assert describe_type(type_of_field(Options.model_fields["d_room"]), examples=False) == "a size of at most 1GiB"


def test_kinds_of_what_is_inside():
    kind = ConstrainedType(Options)
    assert describe_type(type_of_item(type_of_item(kind, "k_inner"), "depth")) == "a whole number"
    assert describe_type(type_of_item(type_of_item(kind, "l_either"), 0)) == "a whole number"
    assert describe_type(type_of_item(type_of_item(kind, "q_table"), "x")) == "a whole number"
    assert type_of_item(kind, "nothing") is None
    assert type_of_item(ConstrainedType(int), 0) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (1.5, "1.5"), ('a"b', '"a\\"b"'), ({}, "a table"), ([1], "a list"), ([], "an empty list")],
)
def test_values_are_shown_as_toml_writes_them(value, text):
    assert format_value(value) == text
