from __future__ import annotations

import pytest

from ostler.cli.global_options import GlobalOptions, OutputOptions, split_global_options
from ostler.errors import InvalidInput


def json(root: str | None, timeout: str | None, rest: list[str]) -> GlobalOptions:
    return GlobalOptions(root, True, timeout, rest, output="json", flags=frozenset({"--json"}))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("status", GlobalOptions(None, False, None, ["status"])),
        ("--root /a --json --timeout 5 status", json("/a", "5", ["status"])),
        ("--root=/a --timeout=5min status", GlobalOptions("/a", False, "5min", ["status"])),
        ("status --root /a --json", json("/a", None, ["status"])),
        ("service --json list --root=/b", json("/b", None, ["service", "list"])),
        ("call volume list --timeout 5", GlobalOptions(None, False, "5", ["call", "volume", "list"])),
        ("call a b -- --json --root", GlobalOptions(None, False, None, ["call", "a", "b", "--", "--json", "--root"])),
        ("--root /a --root /b status", GlobalOptions("/b", False, None, ["status"])),
        ("--bogus status --json", json(None, None, ["--bogus", "status"])),
        ("", GlobalOptions(None, False, None, [])),
    ],
)
def test_global_options_are_taken_before_and_after_the_verb(typed: str, expected: GlobalOptions) -> None:
    assert split_global_options(typed.split()) == expected


@pytest.mark.parametrize("typed", ["--root", "--timeout", "status --root"])
def test_an_option_without_its_value_stays_for_typer_to_explain(typed: str) -> None:
    assert split_global_options(typed.split()) == GlobalOptions(None, False, None, typed.split())


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("status", OutputOptions()),
        ("status -o yaml", OutputOptions(format="yaml")),
        ("-oname status", OutputOptions(format="name")),
        ("status --output=wide", OutputOptions(format="wide")),
        ("status --wide", OutputOptions(format="wide")),
        ("status --json -o name", OutputOptions(format="name")),
        ("status -q -v --no-pager", OutputOptions(quiet=True, verbose=True, pager=False)),
        ("status --no-headers --no-color", OutputOptions(headers=False, color=False)),
        ("status --watch", OutputOptions(watch=2.0)),
        ("status --watch=500ms", OutputOptions(watch=0.5)),
    ],
)
def test_how_results_are_shown_is_said_anywhere_on_the_line(typed: str, expected: OutputOptions) -> None:
    split = split_global_options(typed.split())
    assert split.output_options() == expected
    assert split.rest == ["status"]


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("-o jsn", "did you mean `-o json`"),
        ("-o xml-rpc", "choose one of json"),
        ("--watch=0", "the shortest"),
        ("--watch=x", "x"),
    ],
)
def test_an_output_that_does_not_exist_is_refused_with_those_that_do(typed: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        split_global_options(typed.split()).output_options()
