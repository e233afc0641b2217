"""Options as a manager's and a driver's would be, without those rooms; and a configuration from files."""

from pathlib import Path
from typing import Any

import pytest

from ostler.config import Field, OptionsModel, Paths, Seconds, Secret, Size, load, load_text, validate


class LampOptions(OptionsModel):
    """Options of a service."""

    manager: str = Field(help="Name of the manager", reload="daemon")
    workers: int = Field(8, ge=1, le=1024, help="Threads", reload="service")
    poll: Seconds = Field("30s", gt=0, help="How often the lamps are asked")
    timeout: Seconds | None = Field(None, gt=0, help="When to give up")
    room: Size = Field("1GiB", ge=4096, help="Room for pictures of lamps")
    mode: int | str = Field("auto", help="A number or a word")
    token: Secret | None = Field(None, help="The key to the lamps", min_length=3)
    pin: str = Field("", help="Not of the type, but masked all the same", secret=True)
    colours: list[str] = Field(["red"], help="Colours")
    drivers: dict[str, dict[str, Any]] = Field({}, help="Drivers", reload="daemon")

    def validate_options(self):
        if self.timeout is not None and self.timeout < self.poll:
            yield "timeout", f"must not be below `poll`, which is {self.poll:g} s"


class GpioOptions(OptionsModel):
    """Options of a driver."""

    driver: str = Field(help="Name of the driver", reload="service")
    path: Path = Field("/dev/gpio", help="The device", reload="driver")


SECTIONS = {("services", "lamp"): LampOptions, ("services", "lamp", "drivers", "hall"): GpioOptions}


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "etc" / "conf.d").mkdir(parents=True)
    return Paths.find(str(tmp_path), {})


@pytest.fixture
def write(paths):
    """Write files of a configuration by name: `write(**{"ostler.toml": "..."})`, and read them."""

    def writer(files, overrides=()):
        for name, text in files.items():
            file = paths.config_file.parent / name
            file.write_bytes(text) if isinstance(text, bytes) else file.write_text(text, encoding="utf-8")
        return load(paths, overrides=overrides)

    return writer


@pytest.fixture
def lamp():
    """Validate a text with the models of this page."""

    def reader(text, *, environ=None, **more):
        raw = load_text(text)
        sections = {path: model for path, model in SECTIONS.items() if path in raw.origins}
        return validate(raw, sections, environ or {}, **more)

    return reader


@pytest.fixture
def problems(lamp):
    """Return the lines that a wrong text is refused with."""
    from ostler.errors import ConfigurationError

    def reader(text, **more):
        with pytest.raises(ConfigurationError) as caught:
            lamp(text, **more)
        return [str(problem) for problem in caught.value.problems]

    return reader


@pytest.fixture
def lamp_sections():
    """Return the models of this page by the path of their tables."""
    return SECTIONS
