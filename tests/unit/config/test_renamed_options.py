"""Options by earlier names, and options that will be removed."""

import pytest

from ostler.config import Field, OptionsModel, load_text, validate
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
        "ostler.toml:2:1: lamps.watts: expected a whole number of at most 100, got 600"
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
