from __future__ import annotations

import pytest

from ostler.cli.arguments import Arguments, take_apart


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("status", Arguments(None, False, None, ["status"])),
        ("--root /a --json --timeout 5 status", Arguments("/a", True, "5", ["status"])),
        ("--root=/a --timeout=5min status", Arguments("/a", False, "5min", ["status"])),
        ("status --root /a --json", Arguments("/a", True, None, ["status"])),
        ("service --json list --root=/b", Arguments("/b", True, None, ["service", "list"])),
        ("call volume list --timeout 5", Arguments(None, False, None, ["call", "volume", "list", "--timeout", "5"])),
        ("call a b -- --json --root", Arguments(None, False, None, ["call", "a", "b", "--", "--json", "--root"])),
        ("--root /a --root /b status", Arguments("/b", False, None, ["status"])),
        ("--bogus status --json", Arguments(None, True, None, ["--bogus", "status"])),
        ("", Arguments(None, False, None, [])),
    ],
)
def test_global_options_are_taken_before_and_after_the_verb(typed: str, expected: Arguments) -> None:
    assert take_apart(typed.split()) == expected


@pytest.mark.parametrize("typed", ["--root", "--timeout", "status --root"])
def test_an_option_without_its_value_stays_for_typer_to_explain(typed: str) -> None:
    assert take_apart(typed.split()) == Arguments(None, False, None, typed.split())
