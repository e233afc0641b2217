"""Options by earlier names, and options that will be removed."""

import pytest

from ostler.config import Field, OptionsModel, Secret, load_text, validate, validate_core
from ostler.config.core_sections import CORE_SECTIONS
from ostler.config.option_reference import ReferenceSection, json_schema, render_markdown, render_toml
from ostler.errors import ConfigurationError


class Lamps(OptionsModel):
    """A model that has changed."""

    watts: int = Field(40, le=100, help="", renamed_from="power")
    colours: list[str] = Field([], help="", renamed_from="paints")
    old: int = Field(0, help="", deprecated="use `watts`")


def read(text):
    raw = load_text(text)
    return raw, validate(raw, {("lamps",): Lamps}, {})


def problems(text):
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.failure_mode("Configuration", "an option by its earlier name")
def test_an_earlier_name_is_accepted_with_a_warning() -> None:
    raw, found = read("[lamps]\npower = 60\npaints = ['red']\n")
    assert found.sections["lamps"] == Lamps(watts=60, colours=["red"])
    assert raw.warnings == [
        "ostler.toml:2:1: lamps.power is now watts; the old name will not be accepted in the next minor version",
        "ostler.toml:3:1: lamps.paints is now colours; the old name will not be accepted in the next minor version",
    ]
    assert raw.origin(("lamps", "watts")) == "ostler.toml:2:1"
    assert raw.origin(("lamps", "colours", 0)) == "ostler.toml:3:11"


def test_a_wrong_value_of_an_earlier_name_is_pointed_at() -> None:
    assert problems("[lamps]\npower = 600\n") == [
        "ostler.toml:2:9: lamps.watts: expected a whole number of at most 100, got 600"
    ]


def test_both_names_at_once_are_refused() -> None:
    assert problems("[lamps]\nwatts = 1\npower = 60\n") == [
        "ostler.toml:3:1: lamps.power is now watts, which is set as well; remove it"
    ]


def test_an_option_that_will_be_removed_warns_only_where_it_is_set() -> None:
    assert read("[lamps]\nold = 1\n")[0].warnings == [
        "ostler.toml:2:1: lamps.old will be removed in the next minor version; use `watts`"
    ]
    assert read("[lamps]\nwatts = 1\n")[0].warnings == []


class Bulb(OptionsModel):
    """A nested model that has changed."""

    lumen: int = Field(help="", le=2000, renamed_from="light")
    token: Secret | None = Field(None, help="", renamed_from="password")
    hours: int = Field(0, help="", deprecated="use `lumen`")


class Tube(OptionsModel):
    """Another shape of the same table; `light` is a name of its own here."""

    length: int = Field(help="", renamed_from="size")
    power: int = Field(0, help="")


class Hall(OptionsModel):
    """A model with others inside, in each form of nesting."""

    main: Bulb = Field(help="", renamed_from="first")
    row: list[Bulb] = Field([], help="")
    named: dict[str, list[Bulb]] = Field({}, help="", renamed_from="labels")
    either: Bulb | Tube | None = Field(None, help="")


def hall(text):
    raw = load_text(text)
    return raw, validate(raw, {("hall",): Hall}, {})


NESTED = """[hall]
first.light = 10
named.a = [{lumen = 1}, {light = 20, hours = 3}]
either.size = 5
[[hall.row]]
lumen = 1
[[hall.row]]
light = 30
"""


@pytest.mark.failure_mode("Configuration", "an option of a nested table by its earlier name")
def test_earlier_names_are_accepted_at_any_depth() -> None:
    raw, found = hall(NESTED)
    options = found.sections["hall"]
    assert (options.main.lumen, options.named["a"][1].lumen, options.row[1].lumen) == (10, 20, 30)
    assert options.either == Tube(length=5)
    later = "the old name will not be accepted in the next minor version"
    assert sorted(raw.warnings) == [
        f"ostler.toml:2:1: hall.first is now main; {later}",
        f"ostler.toml:2:7: hall.main.light is now lumen; {later}",
        f"ostler.toml:3:26: hall.named.a[1].light is now lumen; {later}",
        "ostler.toml:3:38: hall.named.a[1].hours will be removed in the next minor version; use `lumen`",
        f"ostler.toml:4:8: hall.either.size is now length; {later}",
        f"ostler.toml:8:1: hall.row[1].light is now lumen; {later}",
    ]
    assert raw.origin(("hall", "main", "lumen")) == "ostler.toml:2:7"


@pytest.mark.parametrize(
    ("value", "where"), [("first.light", "2:15"), ("named.a", "3:34"), ("[[hall.row]]\nlight = 30", "8:9")]
)
@pytest.mark.failure_mode("Configuration", "a wrong value under an earlier name")
def test_a_wrong_nested_value_is_pointed_at_under_its_earlier_name(value, where) -> None:
    text = NESTED.replace(value, value.replace("30", "3000"))
    if value != "[[hall.row]]\nlight = 30":
        text = text.replace("light = 10" if "first" in value else "light = 20", "light = 3000")
    with pytest.raises(ConfigurationError) as caught:
        hall(text)
    [problem] = caught.value.problems
    assert problem.where == f"ostler.toml:{where}"
    line, column, length = problem.source
    assert line[column - 1 :][:length] == "3000"


def test_a_secret_under_its_earlier_name_is_never_quoted() -> None:
    with pytest.raises(ConfigurationError) as caught:
        hall("[hall]\nfirst = {light = 3000, password = 'hunter2'}\n")
    assert "hunter2" not in str([(str(problem), problem.source) for problem in caught.value.problems])


def test_both_names_of_a_core_option_are_refused_in_both_steps(monkeypatch) -> None:
    class Log(CORE_SECTIONS["log"]):
        """One with an earlier name."""

        level: str = Field("info", help="", renamed_from="verbosity")

    monkeypatch.setitem(CORE_SECTIONS, "log", Log)  # no option of the daemon has an earlier name now
    raw = load_text("[log]\nlevel = 'info'\nverbosity = 'info'\n")
    assert [problem.where for problem in validate_core(raw).problems] == ["ostler.toml:3:1"]
    with pytest.raises(ConfigurationError) as caught:
        validate(raw, {}, {})
    assert [problem.where for problem in caught.value.problems] == ["ostler.toml:3:1"]


def test_the_reference_shows_earlier_names_and_what_will_be_removed() -> None:
    section = ReferenceSection(path=("lamps",), model=Lamps)
    earlier = "Its earlier name `power` is accepted until the next minor version."
    removed = "Deprecated, and removed in the next minor version: use `watts`."
    for text in (render_markdown([section]), render_toml([section])):
        unwrapped = text.replace("\n# ", " ")
        assert earlier in unwrapped
        assert removed in unwrapped


def test_the_schema_accepts_earlier_names_as_deprecated() -> None:
    schema = json_schema([ReferenceSection(path=("hall",), model=Hall), ReferenceSection(path=("lamps",), model=Lamps)])
    lamps, bulb = schema["properties"]["lamps"]["properties"], schema["$defs"]["Bulb"]
    assert lamps["power"] == {**lamps["watts"], "description": "Its name is now watts.", "deprecated": True}
    assert lamps["old"]["deprecated"] is True
    assert bulb["properties"]["light"]["deprecated"] is True
    assert bulb["required"] == []
