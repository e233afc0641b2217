import pytest
import tomli

from ostler.config import Field, OptionsModel, Secret, load_text, validate
from ostler.config.option_reference import (
    ReferenceSection,
    core_sections,
    json_schema,
    render_markdown,
    render_toml,
    service_sections,
)


@pytest.fixture
def sections(lamp_sections):
    lamp, driver = lamp_sections.values()
    return [
        *core_sections(),
        *service_sections(lamp, driver),
        ReferenceSection(path=("services", "lamp"), model=lamp, base=lamp, values={"manager": "lamp"}),
    ]


def test_the_file_sets_what_it_is_told_and_shows_the_rest(sections):
    text = render_toml(sections)
    assert tomli.loads(text)["services"] == {"lamp": {"manager": "lamp"}}
    assert '\n#poll = "30s"\n' in text
    assert '\n#room = "1GiB"\n' in text
    assert '\n#token = {credential = "name"}\n' in text
    assert "\n#[services.TOPIC.drivers.NAME]\n" in text
    assert "# How often the lamps are asked. Value: a time span above 0.\n" in text
    assert "# Threads. Value: a whole number from 1 to 1024. A change needs a restart of the service.\n" in text
    assert "#timeout" not in text  # it has no default that could be shown
    assert max(map(len, text.splitlines())) <= 120
    validate(load_text(text), {("services", "lamp"): sections[-1].model}, {})


def test_the_page_has_a_row_for_each_option(sections):
    page = render_markdown(sections)
    assert '| `poll` | a time span above 0 | `"30s"` | no restart | How often the lamps are asked |' in page
    assert "| `manager` | text | **required** | a restart of the daemon | Name of the manager |" in page
    assert "| `timeout` | a time span above 0 | not set | no restart | When to give up |" in page
    assert page.count("| `poll` |") == 1  # the service's own section leaves out what every service has


def test_bars_do_not_break_the_table():
    class Bars(OptionsModel):
        """Bars."""

        one: str = Field("a|b", help="a or b: a|b")

    page = render_markdown([ReferenceSection(path=("bars",), model=Bars)])
    assert '| `one` | text | `"a\\|b"` | no restart | a or b: a\\|b |' in page


def test_the_schema_takes_services_of_any_topic_and_secrets_by_reference(sections):
    schema = json_schema(sections)
    assert schema["additionalProperties"] is False
    services = schema["properties"]["services"]
    assert services["properties"]["lamp"]["additionalProperties"] is False
    anyone = services["additionalProperties"]
    assert anyone["additionalProperties"] is True
    assert "path" in anyone["properties"]["drivers"]["additionalProperties"]["properties"]
    assert "credential" in str(anyone["properties"]["token"])
    assert anyone["properties"]["workers"] == {
        "default": 8,
        "description": "Threads",
        "maximum": 1024,
        "minimum": 1,
        "type": "integer",
        "x-reload": "service",
    }


def test_a_section_without_options_of_its_own_says_so():
    class Empty(OptionsModel):
        """Nothing."""

    assert "No options." in render_markdown([ReferenceSection(path=("empty",), model=Empty)])


def test_a_secret_without_default_is_shown_as_a_reference():
    class Keyed(OptionsModel):
        """Keyed."""

        key: Secret = Field(help="The key")

    text = render_toml([ReferenceSection(path=("keyed",), model=Keyed)])
    assert '# The key. Required. Value: a secret: {credential = "name"} or {file = "/path"}.\n' in text
    assert '\n#key = {credential = "name"}\n' in text
