import subprocess
import sys
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path

import pydantic
import pytest

from ostler.config import Field, OptionsModel, Seconds, Secret, Size, load_text, validate
from ostler.config.options import option_metadata


class Colour(StrEnum):
    RED = "red"


class Options(OptionsModel):
    wait: Seconds = Field("5min", help="A wait")
    room: Size = Field("1GiB", help="Room", reload="service")
    directory: Path = Field(Path("/srv"), help="A directory")
    text_directory: Path = Field("/srv", help="A directory, its default as text")
    colour: Colour = Field(Colour.RED, help="A colour")
    address: IPv4Address | None = Field(None, help="An address")
    names: tuple[str, ...] = Field(("a",), help="Names")
    token: Secret | None = Field(None, help="A secret", unit="letters")
    host: str = Field(default_factory=lambda: "asked", help="Asked for late", shown="the machine's name")


def read(text):
    return validate(load_text(f"[own]\n{text}"), {("own",): Options}, {}).sections["own"]


def test_defaults_may_be_written_as_in_a_file():
    for options in (Options(), read("")):
        assert (options.wait, options.room) == (300.0, 2**30)
        assert options.directory == options.text_directory == Path("/srv")
        assert (options.colour, options.names, options.host) == (Colour.RED, ("a",), "asked")


def test_values_of_a_file_become_what_the_option_says():
    options = read('wait = "2h"\nroom = 5\ndirectory = "/x"\ncolour = "red"\naddress = "10.0.0.1"\nnames = ["b", "c"]')
    assert (options.wait, options.room, options.directory) == (7200.0, 5, Path("/x"))
    assert (options.colour, options.address, options.names) == (Colour.RED, IPv4Address("10.0.0.1"), ("b", "c"))


def test_options_cannot_be_changed_and_defaults_are_not_shared():
    class Listed(OptionsModel):
        names: list[str] = Field([], help="Names")

    one, other = Listed(), Listed()
    one.names.append("x")
    assert other.names == []
    with pytest.raises(pydantic.ValidationError):
        one.names = ["y"]


def test_a_test_of_a_plugin_builds_options_by_name():
    options = Options(wait="30s", directory="/y", token="open")
    assert (options.wait, options.directory) == (30.0, Path("/y"))
    assert "open" not in repr(options)


def test_what_was_declared_can_be_asked_for():
    facts = option_metadata(Options.model_fields["room"])
    assert (facts.reload, facts.secret, facts.unit) == ("service", False, "")
    assert option_metadata(Options.model_fields["token"]).unit == "letters"

    class Plain(OptionsModel):
        one: int = 1

    assert option_metadata(Plain.model_fields["one"]).reload == "daemon"


def test_a_model_is_not_built_before_it_is_used():
    class Late(OptionsModel):
        one: int = 1

    assert not Late.__pydantic_complete__
    assert Late().one == 1


def test_functions_are_not_hidden_by_modules_of_their_names():
    program = (
        "import ostler.config.layers, ostler.config.validation, ostler.config.configuration_diff, "
        "ostler.config.configuration\n"
        "from ostler.config import *\n"
        "assert callable(load) and callable(validate) and callable(diff)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_names_that_are_not_there_are_no_attributes():
    import ostler.config

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ostler.config.nothing
