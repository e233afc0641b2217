"""The real systemd, booted once for all tests here."""

import os
from collections.abc import Iterator

import pytest
from realsystemd import Machine, booted, unavailable


@pytest.fixture(scope="session")
def bare_machine() -> Iterator[Machine]:
    """A booted systemd with nothing of ours in it."""
    why = unavailable()
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"{why}, and in CI these tests have to run")
    if why:
        pytest.skip(why)
    with booted() as machine:
        yield machine
