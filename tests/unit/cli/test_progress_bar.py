from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ostler.cli import invocation, kit
from ostler.cli.global_options import OutputOptions
from ostler.cli.progress_bar import format_amount, format_rate
from ostler.messaging.wire.request_context import Progress
from support.terminal import Terminal
from support.waiting import wait_until

GIB = 2**30


@contextlib.contextmanager
def screen(**options: Any) -> Iterator[Terminal]:
    shown = Terminal()
    session = invocation.Invocation(environ={"TERM": "xterm"}, **options)
    with contextlib.redirect_stderr(shown), invocation.use_invocation(session):
        yield shown


@pytest.mark.parametrize(
    ("done", "total", "unit", "text"),
    [
        (0, 0, "", ""),
        (3, 8, "", "3 of 8"),
        (3, 8, "files", "3 of 8 files"),
        (12, 0, "files", "12 files"),
        (GIB, 10 * GIB, "", "1GiB of 10GiB"),
        (2 * 10**6, 0, "", "2MB"),
        (100, 200, "bytes", "100B of 200B"),
        (5 * 10**6, 10**7, "rows", "5,000,000 of 10,000,000 rows"),
        (float("nan"), 0, "", ""),
        (float("inf"), 0, "", ""),
        (1.0, 1e308, "", ""),
    ],
)
def test_amounts_are_bytes_or_what_is_counted(done: float, total: float, unit: str, text: str) -> None:
    assert format_amount(done, total, unit) == text


@pytest.mark.parametrize(
    ("rate", "done", "total", "text"),
    [
        (0.0, 0, 8, ""),
        (2.0, 4, 8, "2s left"),
        (2.0, 8, 8, ""),
        (100 * 2**20, GIB, 11 * GIB, "100MiB/s, 1min 42s left"),
        (100 * 2**20, 4 * GIB, 0, "100MiB/s"),
        (1e-12, 1, GIB, ""),
        (float("nan"), 1, GIB, ""),
        (float("inf"), 1, GIB, ""),
        (1.0, 1, 1e308, ""),
    ],
)
def test_the_rate_and_the_time_left_are_shown_if_they_are_known(
    rate: float, done: float, total: float, text: str
) -> None:
    assert format_rate(rate, done, total) == text


def test_a_bar_shows_bytes_rate_and_time_left() -> None:
    with screen() as shown, kit.progress("copying") as on_progress:
        for number in range(1, 6):
            on_progress(Progress(number * GIB, 10 * GIB, ""))
    assert re.search(r"copying.*50%.*5GiB of 10GiB", shown.getvalue().rpartition("\r")[0], re.DOTALL)


def test_a_report_that_makes_no_sense_breaks_nothing() -> None:
    with screen() as shown, kit.progress("copying") as on_progress:
        for done, total in [(-5, 10), (20, 10), (1, -1), (float("inf"), 10), (5, float("nan"))]:
            on_progress(Progress(done, total, "a\x1b[2J"))
    assert "a\\x1b[2J" in shown.getvalue()


def test_what_reports_nothing_is_shown_after_a_while() -> None:
    with screen() as shown, kit.progress("thinking", appear_after=0.01):
        wait_until(lambda: "thinking" in shown.getvalue())


def test_a_late_report_draws_nothing() -> None:
    with screen() as shown:
        with kit.progress("copying") as on_progress:
            pass
        on_progress(Progress(1, 2, ""))
    assert shown.getvalue() == ""


@pytest.mark.parametrize("options", [{"json": True}, {"output": OutputOptions(quiet=True)}])
def test_programs_and_the_quiet_get_no_bar(options: Any) -> None:
    with screen(**options) as shown, kit.progress("copying") as on_progress:
        on_progress(Progress(1, 2, ""))
    assert shown.getvalue() == ""
