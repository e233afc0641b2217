"""The real systemd, booted once for all tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import HOME, InstallationFailed, install, prepared
from ostler_unit import Unit
from realsystemd import Machine, booted, unavailable


@pytest.fixture(scope="session")
def possible() -> None:
    """Skip, with the reason, where no systemd can be booted; in CI that is a failure."""
    why = unavailable()
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"{why}; in CI these tests have to run")
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def bare_machine(possible: None) -> Iterator[Machine]:
    """A booted systemd with nothing of ours in it."""
    with booted() as machine:
        yield machine


@pytest.fixture(scope="session")
def machine(possible: None) -> Iterator[Machine]:
    """A booted systemd with Ostler installed, and with this machine's loop devices."""
    try:
        environment = prepared()
    except InstallationFailed as error:
        pytest.fail(str(error))
    loops = [path for path in sorted(Path("/dev").glob("loop*")) if path.is_block_device() or path.is_char_device()]
    with booted([f"--bind-ro={environment}:{HOME}", *(f"--bind={path}" for path in loops)]) as machine:
        install(machine)
        yield machine


@pytest.fixture
def unit(machine: Machine) -> Iterator[Unit]:
    """The installed service, fresh."""
    unit = Unit(machine)
    unit.fresh()
    yield unit
    unit.fresh()
