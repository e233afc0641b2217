"""How a forked child ends; in real children, for the process is all that there is to it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ostler import fork


def in_child(work: Callable[[], object]) -> tuple[int, str]:
    """Run something in a forked child; return its exit code and what it wrote to stderr."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 2)
        fork.in_child = True  # as the hook of a forked daemon sets it, here without a daemon
        try:
            work()
        finally:
            os._exit(99)
    os.close(write)
    with os.fdopen(read) as text:
        said = text.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(3), 3, ""),
        (SystemExit(-1), 255, ""),
        (SystemExit("that was all"), 1, "that was all"),
        (KeyboardInterrupt(), 130, ""),
        (ValueError("no number"), 1, "ValueError: no number"),
    ],
)
def test_a_child_ends_with_the_code_that_python_would_give(error, code, said) -> None:
    found, text = in_child(lambda: fork.exit_child(error))
    assert found == code
    assert said in text


def test_a_child_whose_error_cannot_be_told_ends_all_the_same() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert in_child(lambda: fork.exit_child(Unprintable()))[0] == 1


def test_outside_of_a_child_nobody_leaves() -> None:
    # Passing is the assertion: it returns, and this process is still there.
    fork.exit_if_child(SystemExit(3))
