from __future__ import annotations

import pytest

from ostler.cli.global_options import GlobalOptions, split_global_options


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("status", GlobalOptions(None, False, None, ["status"])),
        ("--root /a --json --timeout 5 status", GlobalOptions("/a", True, "5", ["status"])),
        ("--root=/a --timeout=5min status", GlobalOptions("/a", False, "5min", ["status"])),
        ("status --root /a --json", GlobalOptions("/a", True, None, ["status"])),
        ("service --json list --root=/b", GlobalOptions("/b", True, None, ["service", "list"])),
        (
            "call volume list --timeout 5",
            GlobalOptions(None, False, None, ["call", "volume", "list", "--timeout", "5"]),
        ),
        ("call a b -- --json --root", GlobalOptions(None, False, None, ["call", "a", "b", "--", "--json", "--root"])),
        ("--root /a --root /b status", GlobalOptions("/b", False, None, ["status"])),
        ("--bogus status --json", GlobalOptions(None, True, None, ["--bogus", "status"])),
        ("", GlobalOptions(None, False, None, [])),
    ],
)
def test_global_options_are_taken_before_and_after_the_verb(typed: str, expected: GlobalOptions) -> None:
    assert split_global_options(typed.split()) == expected


@pytest.mark.parametrize("typed", ["--root", "--timeout", "status --root"])
def test_an_option_without_its_value_stays_for_typer_to_explain(typed: str) -> None:
    assert split_global_options(typed.split()) == GlobalOptions(None, False, None, typed.split())
