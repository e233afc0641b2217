"""What every test may count on, however the run was started."""

from __future__ import annotations

import ast
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ostler.redaction import SECRETS

_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1 << 1
_CAP_DAC_READ_SEARCH = 1 << 2


def pytest_configure() -> None:
    """Let Ctrl-C through: a shell without job control starts what runs in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # CI looks at the same examples each time; people's runs go on looking for new ones. How long one takes says
    # something of the machine, and nothing of what is tested.
    settings.register_profile("people", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("ci", settings.get_profile("people"), derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "people")
    if sys.version_info < (3, 11, 8):
        _parse_again_when_threads_meet()


def _parse_again_when_threads_meet() -> None:
    """Have `ast.parse` try again where CPython's count of its depth, one for all threads, was changed by another one.

    pytest parses what it imports and what failed, and each traceback that a thread logs parses its lines: when the
    collector of garbage lets both run at once, the run ended with INTERNALERROR (CPython's issue 106905).
    """
    parse = ast.parse

    def parse_again(*args: Any, **options: Any) -> Any:
        for _ in range(100):
            try:
                return parse(*args, **options)
            except SystemError as error:
                if "recursion depth mismatch" not in str(error):
                    raise
        return parse(*args, **options)

    ast.parse = parse_again  # for all that parses, in whichever module


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests() -> None:
    """Have the process know no secret that another test has read: they are taken out of whatever it says."""
    SECRETS.__init__()  # the one object of the process, which modules have by name


@pytest.fixture
def modes_count() -> Iterator[None]:
    """Have the modes of files count for root as for every user, in the thread of the test."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, first of 0 to 31, then of 32 to 63

    def ask(function: str, sets: ctypes.Array[ctypes.c_uint32]) -> None:
        if getattr(libc, function)(header, sets):
            raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")

    ask("capget", before)
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~(_CAP_DAC_OVERRIDE | _CAP_DAC_READ_SEARCH)
    ask("capset", without)
    yield
    ask("capset", before)
