import pytest

from ostler.cli.fast_check import parse_overrides


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ([], []),
        (["--set", "a.b=1"], ["a.b=1"]),
        (["--set=a.b=1", "--set", "c.d=2=3"], ["a.b=1", "c.d=2=3"]),
        (["--set"], None),
        (["--help"], None),
        (["--probe"], None),
        (["--set", "a.b=1", "more"], None),
    ],
)
def test_only_what_needs_no_typer_is_done_without_it(words, overrides):
    assert parse_overrides(words) == overrides
