"""The shipped configuration file and the reference page are what the declarations of the options say.

After a change of an option: `OSTLER_REGENERATE=1 pytest tests/docs/test_configuration_reference.py`.
"""

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name

import pytest

from ostler.config import load_text, validate
from ostler.config.option_reference import (
    ReferenceSection,
    core_sections,
    json_schema,
    render_markdown,
    render_toml,
    service_sections,
)
from ostler.driver import DriverOptions
from ostler.manager import ManagerOptions
from ostler_http.application import AppOptions, FilterOptions
from ostler_http.filters.auth import AuthFilter
from ostler_http.filters.cors import CorsFilter
from ostler_http.filters.limit import LimitFilter
from ostler_http.options import HttpOptions, LimitOptions, TlsOptions

ROOT = Path(__file__).parents[2]
SHIPPED_FILE = ROOT / "conf" / "ostler.toml"
PAGE = ROOT / "docs" / "configuration.md"

# What the shipped file sets, for the layout of the system's places.
SHIPPED = {
    ("services", "volume"): {"manager": "volume"},
    ("services", "volume", "drivers", "local"): {"driver": "file", "path": "/var/lib/ostler/volumes"},
    ("services", "scheduler"): {"manager": "scheduler"},
}
BUNDLED = ("volume", "scheduler")


def bundled():
    """What the bundled plugins bring, found as the plugin host finds them, but none that happens to be installed."""
    managers, drivers, sections = {}, {}, {}
    for point in sorted(entry_points(group="ostler"), key=lambda point: point.name):
        if point.name in BUNDLED:
            plugin = point.load()
            managers |= getattr(plugin, "ostler_managers", dict)()
            drivers |= getattr(plugin, "ostler_drivers", dict)()
            sections |= getattr(plugin, "ostler_config_sections", dict)()
    return managers, drivers, sections


def options_of(brought):
    return (resolve_name(brought) if isinstance(brought, str) else brought).Options


@pytest.fixture(scope="module")
def shipped_sections():
    managers, drivers, own = bundled()
    sections = core_sections() + service_sections(ManagerOptions, DriverOptions)
    sections += [ReferenceSection(path=(name,), model=model) for name, model in sorted(own.items())]
    for path, values in SHIPPED.items():
        if len(path) == 2:
            model, base = options_of(managers[values["manager"]]), ManagerOptions
            about = f"The service of the manager `{values['manager']}`, with the options of its own."
        else:
            model, base = options_of(drivers[path[1], values["driver"]]), DriverOptions
            about = f"Its driver `{values['driver']}`, with the options of its own."
        sections.append(ReferenceSection(path=path, model=model, base=base, description=about, values=values))
    return sections


@pytest.fixture(scope="module")
def http_sections():
    """The tables of an HTTP service, which the shipped file does not have: nothing listens on a port by default."""
    web = ("services", "web")
    tables = [
        (web, HttpOptions, "A service of the manager `http`, with the options of its own; see [http.md](http.md)."),
        ((*web, "tls"), TlsOptions, "TLS of its addresses with a port."),
        ((*web, "limits"), LimitOptions, "What bounds its clients."),
        ((*web, "apps", "/path"), AppOptions, "A mount, with the options that every application has."),
    ]
    tables += [
        ((*web, "filters", name), cls.Options, f"The filter `{name}`, with the options of its own.")
        for name, cls in (("auth", AuthFilter), ("limit", LimitFilter), ("cors", CorsFilter))
    ]
    bases = {HttpOptions: ManagerOptions, AuthFilter.Options: FilterOptions}
    bases |= {LimitFilter.Options: FilterOptions, CorsFilter.Options: FilterOptions}
    return [
        ReferenceSection(path=path, model=model, base=bases.get(model), description=about)
        for path, model, about in tables
    ]


def models(sections):
    return {
        section.path: section.model for section in sections if section.path[0] == "services" and not section.is_pattern
    }


def compare(file, text):
    if os.environ.get("OSTLER_REGENERATE"):
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text, (
        "run this test again with OSTLER_REGENERATE=1 and commit the result"
    )


def test_the_shipped_file_is_what_the_declarations_say(shipped_sections):
    compare(SHIPPED_FILE, render_toml(shipped_sections))


def test_the_reference_page_is_what_the_declarations_say(shipped_sections, http_sections):
    compare(PAGE, render_markdown([*shipped_sections, *http_sections]))


def test_the_shipped_file_is_a_configuration_that_works(shipped_sections):
    raw = load_text(SHIPPED_FILE.read_text(encoding="utf-8"))
    configuration = validate(raw, models(shipped_sections), {})
    assert sorted(configuration.services) == ["scheduler", "volume"]
    assert str(configuration.drivers["volume", "local"].path) == "/var/lib/ostler/volumes"


def test_every_default_in_the_shipped_file_can_be_uncommented(shipped_sections):
    text = re.sub(r"(?m)^#(?=\S)", "", SHIPPED_FILE.read_text(encoding="utf-8"))
    text = text.replace("TOPIC", "another").replace("NAME", "backend")
    sections = models(shipped_sections) | {
        ("services", "another"): ManagerOptions,
        ("services", "another", "drivers", "backend"): DriverOptions,
    }
    configuration = validate(load_text(text), sections, {}, offline=True)
    assert configuration.daemon.host == "node1"


def test_every_option_stands_in_the_file_and_on_the_page(shipped_sections):
    file, page = SHIPPED_FILE.read_text(encoding="utf-8"), PAGE.read_text(encoding="utf-8")
    for section in shipped_sections:
        for name in section.model.model_fields:
            if name != "drivers":
                assert f"| `{name}` |" in page, name
                assert re.search(rf"(?m)^#?{name} = |\b{name}: not set", file), name


def test_the_schema_knows_every_table(shipped_sections):
    schema = json_schema(shipped_sections)
    services = schema["properties"]["services"]
    assert {"daemon", "plugins", "access", "log", "messaging", "store", "services"} <= schema["properties"].keys()
    assert "path" in services["properties"]["volume"]["properties"]["drivers"]["properties"]["local"]["properties"]
    assert "workers" in services["additionalProperties"]["properties"]
