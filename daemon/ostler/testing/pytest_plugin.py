"""Fixtures for tests of plugins; pytest loads them if Ostler is installed. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ostler.testing.in_process import Host


@pytest.fixture
def ostler_host() -> Iterator[Callable[..., Host]]:
    """Return a function that starts an `ostler.testing.host` and stops it at the end of the test."""
    from ostler.testing.in_process import host  # pytest loads this plugin in every project

    with ExitStack() as stack:

        def start(**arguments: Any) -> Host:
            return stack.enter_context(host(**arguments))

        yield start
