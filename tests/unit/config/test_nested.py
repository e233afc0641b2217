"""Models within the options of a table: their secrets, their checks, and where their problems are shown."""

import pytest

from ostler.config import Field, OptionsModel, Secret, load_text, validate
from ostler.config.option_reference import ReferenceSection, json_schema
from ostler.errors import ConfigurationError


class Account(OptionsModel):
    """An account."""

    name: str = Field("x", help="")
    number: int = Field(1, help="", ge=0, le=9)
    token: Secret | None = Field(None, help="")

    def validate_options(self):
        if self.number == 7:
            yield "number", "must not be seven"
        if self.name == "broken":
            raise KeyError("a defect")


class Proxy(OptionsModel):
    """A proxy."""

    port: int = Field(help="")


class Nest(OptionsModel):
    """All the ways in which a model may be in another."""

    one: Account | None = Field(None, help="")
    many: list[Account] = Field([], help="")
    named: dict[str, Account] = Field({}, help="")
    deep: dict[str, list[Account]] = Field({}, help="")
    either: Account | Proxy | None = Field(None, help="")
    loose: str | Account = Field("", help="")
    tokens: list[Secret] = Field([], help="")
    keyed: dict[str, Secret] | None = Field(None, help="")


def read(text, **more):
    return validate(load_text(text), {("nest",): Nest}, {}, **more)


def problems(text, **more):
    with pytest.raises(ConfigurationError) as caught:
        read(text, **more)
    return [str(problem) for problem in caught.value.problems]


NESTED = """[nest]
one = {VALUE}
many = [{number = 1},
  {VALUE}]
deep.a = [{VALUE}]
[nest.named.k]
  VALUE
[nest.either]
 VALUE
"""
KEYS = (
    (2, 8, "nest.one"),
    (4, 4, "nest.many[1]"),
    (5, 12, "nest.deep.a[0]"),
    (7, 3, "nest.named.k"),
    (9, 2, "nest.either"),
)
"""Line and column of each key VALUE, and its table."""


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("number = 10", ".number: expected a whole number from 0 to 9, got 10"),
        ("number = 7", ".number: must not be seven"),
        ("token = 'plain'", ".token: a secret must not be written in the configuration; write"),
        ("token = {file = '/proc/nothing/here'}", ".token: secret file /proc/nothing/here not found"),
    ],
)
def test_a_problem_of_a_nested_model_is_shown_at_its_own_place(value, what):
    found = problems(NESTED.replace("VALUE", value))
    before = value.index("=") + 2
    expected = [f"ostler.toml:{line}:{column + before}: {table}{what}" for line, column, table in KEYS]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_of_a_value_that_may_be_one_of_two_models_the_nearer_one_is_told():
    assert problems("[nest]\neither = {port = 'x'}\n") == [
        'ostler.toml:2:18: nest.either.port: expected a whole number, got "x"'
    ]
    assert problems("[nest.either]\nnumber = 1\nnme = 'x'\n") == [
        'ostler.toml:3:1: unknown key "nme" in [nest.either]; did you mean "name"?'
    ]


def test_a_table_where_text_would_do_as_well_is_judged_as_a_table():
    assert problems("[nest]\nloose = {number = 10, q = 1}\n") == [
        "ostler.toml:2:19: nest.loose.number: expected a whole number from 0 to 9, got 10",
        'ostler.toml:2:23: unknown key "q" in [nest.loose]; available: name, number, token',
    ]
    assert problems("[nest]\nloose = 1\n") == ["ostler.toml:2:9: nest.loose: expected text or a table, got 1"]


@pytest.mark.parametrize("offline", [False, True])
def test_secrets_are_read_and_masked_however_deep_they_are(tmp_path, offline):
    (tmp_path / "s").write_text("deeply hidden\n")
    reference = f"{{file = '{tmp_path}/s'}}"
    text = NESTED.replace("VALUE", f"token = {reference}").replace("number = 1", f"token = {reference}")
    found = read(f"{text}[nest.keyed]\na = {reference}\n", offline=offline)
    nest = found.sections["nest"]
    for secret in (nest.one.token, nest.many[1].token, nest.named["k"].token, nest.deep["a"][0].token, nest.keyed["a"]):
        assert secret.get_secret_value() == "deeply hidden"
    shown = [option.value for option in found.values()]
    assert "deeply hidden" not in str(shown)
    assert "**********" not in str(shown)
    assert read(f"[nest]\ntokens = [{reference}]\n").sections["nest"].tokens[0].get_secret_value() == "deeply hidden"


@pytest.mark.failure_mode("Plugins", "a check of options that raises or exits")
def test_a_check_that_raises_is_a_problem_of_its_own():
    assert problems("[nest]\none = {name = 'broken'}\n") == [
        "ostler.toml:2:7: nest.one: the validate_options of Account failed: KeyError: 'a defect'"
    ]


def test_models_of_one_name_stay_two_in_the_schema():
    same_name = type("Account", (OptionsModel,), {"__annotations__": {"colour": str}})

    class Other(OptionsModel):
        one: same_name | None = Field(None, help="")  # type: ignore[valid-type]

    schema = json_schema([ReferenceSection(path=("nest",), model=Nest), ReferenceSection(path=("other",), model=Other)])
    names = {
        section: schema["properties"][section]["properties"]["one"]["anyOf"][0]["$ref"] for section in ("nest", "other")
    }
    assert names == {"nest": "#/$defs/Account", "other": "#/$defs/other.Account"}
    assert list(schema["$defs"]["other.Account"]["properties"]) == ["colour"]
