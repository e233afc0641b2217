"""The line of a problem is quoted with a mark under the value, and shows no secret."""

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from ostler.config import Field, OptionsModel, Secret, load_text, validate
from ostler.config.problem_text import problem_lines
from ostler.config.toml_positions import TextPosition, text_offset, text_position, toml_layout
from ostler.errors import ConfigurationError


class Login(OptionsModel):
    """A model with a secret."""

    user: int = Field(0, help="")
    password: Secret | None = Field(None, help="")


class Safe(OptionsModel):
    """Secrets in all places."""

    number: int = Field(0, le=9, help="")
    numbers: list[int] = Field([], help="")
    login: Login | None = Field(None, help="")
    logins: list[Login] = Field([], help="")
    by_name: dict[str, Login] = Field({}, help="")
    pin: str = Field("", help="", secret=True)
    tokens: list[Secret] = Field([], help="")
    keyed: dict[str, Secret] = Field({}, help="")


def quoted(text: str) -> list[list[str]]:
    with pytest.raises(ConfigurationError) as caught:
        validate(load_text(text), {("safe",): Safe}, {})
    return [problem_lines(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("line", "shown", "mark"),
    [
        ("number  =  10 # why", "number  =  10", "           ^^"),
        ("nmber = 1", "nmber = ***", "^^^^^"),
        ('numbers = [1, "zwölf", 3]', 'numbers = [1, "zwölf", 3]', "              ^^^^^^^"),
        ('numbers = [1, "山", 3]', 'numbers = [1, "山", 3]', "              ^^^^"),
        ("number = 10\r", "number = 10", "         ^^"),
        ('number = """\nx"""', 'number = """', "         ^^^"),
    ],
)
def test_a_mark_is_under_what_is_meant(line, shown, mark) -> None:
    ((_, source, below),) = quoted(f"[safe]\n{line}\n")
    assert (source, below) == (f"    {shown}", f"    {mark}")


SECRET = "hunter2"


@pytest.mark.failure_mode("Configuration", "a secret in the quoted line")
@pytest.mark.parametrize(
    "line",
    [
        f'pin = "{SECRET}"\nnumber = 10',
        f'login = {{user = "x", password = "{SECRET}"}}',
        f'logins = [{{password = "{SECRET}", user = "x"}}]',
        f'by_name.a = {{password = "{SECRET}", user = "x"}}',
        f'tokens = ["{SECRET}"]',
        f'keyed = {{a = "{SECRET}"}}',
        f'login = {{pasword = "{SECRET}"}}',
        f'login = ["{SECRET}"]',
        f'number = {{a = "{SECRET}"}}',
        f'pni = "{SECRET}"',
        f"number = 10 # pin was {SECRET}",
        f'pin = ["{SECRET}", """{SECRET}"""]',
        f'pin = "{SECRET}',
        f"pin = {SECRET}",
        f'tokens = [\n "{SECRET}"\n "{SECRET}"]',
        f'pin = """\n{SECRET} = "\\q"\n"""',
        f'{{ "{SECRET}"',
        f'pin = """\n[{SECRET}]\n"""\npin = 1',
        f'pin = """\n[{SECRET} \\q\n"""',
        f'pin = {{file = "{SECRET}"}}',
        f'login = {{user = "x", password = {{file = "/{SECRET}"}}}}',
    ],
)
def test_no_line_shows_what_may_be_a_secret(line) -> None:
    for _, *source in quoted(f"[safe]\n{line}\n"):
        assert SECRET not in "".join(source)


def test_a_long_line_is_cut_around_its_mark() -> None:
    items = ", ".join(str(number) for number in range(1000))
    ((_, source, mark),) = quoted(f'[safe]\nnumbers = [{items}, "wrong", {items}]\n')
    assert len(source) < 110
    assert source[mark.index("^") : mark.rindex("^") + 1] == '"wrong"'


def test_a_syntax_error_shows_its_key() -> None:
    assert [lines[1:] for lines in quoted("[safe]\nnumber = 1 2\n")] == [["    number = …", "             ^"]]


_keys = st.text("ab-_ .ä\"'\\#=", max_size=4)
_texts = st.text("a \"'\\#=[]{},\n\r\t\x7f\0ä€\u2028\U0001f4a1", max_size=6)
"""Of characters that mean something: the table of all takes a second to build, which counts as too slow."""
_values = st.recursive(
    st.integers() | st.booleans() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=12,
)


def _toml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_string(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + ",\n  ".join(map(_toml, value)) + "]"
    return _string(value) if isinstance(value, str) else str(value).lower()


def _string(text: str) -> str:
    return (
        '"'
        + "".join(f"\\U{ord(char):08x}" if char in '"\\' or ord(char) < 32 or char == "\x7f" else char for char in text)
        + '"'
    )


@pytest.mark.failure_mode("Configuration", "a problem that points elsewhere than at its value")
@given(st.dictionaries(_keys, _values, max_size=5), st.sampled_from(["", "[t]\n", "# a [ = \n[[t]]\n[t.u]\n"]))
def test_whatever_the_text_the_place_is_that_of_the_value(data, header) -> None:
    text = header + "".join(f"{_string(key)}  =\t{_toml(value)} # {{\n" for key, value in data.items())
    parsed = tomli.loads(text)
    found = toml_layout(text).values
    assert found or not data
    for path, (start, end) in found.items():
        node = parsed
        for part in path:
            node = node[part]
        assert tomli.loads(f"value = {text[start:end]}") == {"value": node}
        position = text_position(text, start)
        assert text_offset(text, TextPosition(*position)) == start
