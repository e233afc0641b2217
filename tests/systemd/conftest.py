"""The real systemd, booted once for all tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import HOME, InstallationFailed, debian_13, install, prepared
from ostler_unit import Unit
from systemd_container import SystemdContainer, booted, unavailable


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test here its mark, and the first one time to fetch and install what the machine consists of."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.systemd)
            item.add_marker(pytest.mark.timeout(60, func_only=True))


@pytest.fixture(scope="session")
def possible() -> None:
    """Skip, with the reason, where no systemd can be booted; in CI that is a failure."""
    why = unavailable()
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"{why}; in CI these tests have to run")
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def other_root(possible: None) -> Path | None:
    """The root to test in: a Debian 13 for `make test-trixie`, else None for this machine's."""
    return debian_13() if os.environ.get("OSTLER_TEST_TRIXIE") else None


@pytest.fixture(scope="session")
def bare_machine(other_root: Path | None) -> Iterator[SystemdContainer]:
    """A booted systemd with nothing of ours in it."""
    with booted(root=other_root or Path("/")) as machine:
        yield machine


@pytest.fixture(scope="session")
def machine(other_root: Path | None) -> Iterator[SystemdContainer]:
    """A booted systemd with Ostler installed, and with this machine's loop devices."""
    try:
        environment = prepared(other_root)
    except InstallationFailed as error:
        pytest.fail(str(error))
    loops = [path for path in sorted(Path("/dev").glob("loop*")) if path.is_block_device() or path.is_char_device()]
    options = [f"--bind-ro={environment}:{HOME}", *(f"--bind={path}" for path in loops)]
    with booted(options, root=other_root or Path("/")) as machine:
        install(machine)
        yield machine


@pytest.fixture
def unit(machine: SystemdContainer) -> Iterator[Unit]:
    """The installed service, fresh."""
    unit = Unit(machine)
    unit.fresh()
    yield unit
    unit.fresh()
