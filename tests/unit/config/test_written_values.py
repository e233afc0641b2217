from __future__ import annotations

from typing import Any

import pytest

from ostler.cli.config_text import config_toml
from ostler.config import Field, OptionsModel, Seconds, Size, diff, load_text, validate
from ostler.config.configuration_diff import effective_values
from ostler.config.written_values import written_text


class Shelf(OptionsModel):
    room: Size = Field(0, help="How much fits on it")
    wait: Seconds | None = Field(90.0, help="How long it is waited for")
    count: int = Field(5, help="How many shelves there are")


class Options(OptionsModel):
    room: Size = Field(10 * 2**30, help="How much fits")
    wait: Seconds = Field(0.25, help="How long it is waited for")
    by_name: dict[str, Size] = Field({}, help="How much fits in each")
    shelf: Shelf = Field(Shelf(), help="A shelf")


@pytest.mark.parametrize("text", ["500MB", "10GiB", "512kB", "500KiB", "1.5 MiB", "524288B"])
def test_a_size_comes_back_as_it_went_in(text: str) -> None:
    found = validate(load_text(f'[messaging]\ndedup_size = "{text}"'), {}, {})
    option = next(each for each in found.values() if each.path == "messaging.dedup_size")
    assert (option.text, type(option.value)) == (text, int)
    assert f'dedup_size = "{text}"  # ' in config_toml([option])


@pytest.mark.parametrize(("toml", "text"), [("300", ""), ('"5min"', "5min"), ('" 300 s "', " 300 s "), ("300.0", "")])
def test_a_time_span_comes_back_as_it_went_in_and_a_number_as_a_number(toml: str, text: str) -> None:
    found = validate(load_text(f"[messaging]\ndedup_ttl = {toml}"), {}, {})
    option = next(each for each in found.values() if each.path == "messaging.dedup_ttl")
    assert (option.text, option.value) == (text, 300.0)


def test_what_is_shown_can_be_read_again_and_is_the_same() -> None:
    before = validate(load_text('[messaging]\nmax_memory = "500MB"\ndedup_size = "512kB"\n'), {}, {})
    after = validate(load_text(config_toml([each for each in before.values() if each.value is not None])), {}, {})
    assert diff(before, after) == []


def test_a_change_has_both_texts_and_both_numbers() -> None:
    old, new = (validate(load_text(text), {}, {}) for text in ("", '[messaging]\nmax_memory = "500MB"'))
    (change,) = diff(old, new)
    assert (change.new, change.new_text) == (500_000_000, "500MB")
    assert change.old_text.endswith("iB")
    running = next(each for each in effective_values(old, new, {}) if each.path == "messaging.max_memory")
    assert running.text in {change.old_text, change.new_text}


@pytest.mark.parametrize(
    ("place", "value", "raw", "text"),
    [
        (("room",), 10 * 2**30, None, "10GiB"),
        (("room",), 2**30 + 1, None, ""),  # a rounded text would be another size
        (("room",), 0, None, ""),
        (("wait",), 0.25, None, "250ms"),
        (("wait",), 90.0, None, "1min 30s"),
        (("by_name", "a"), 500_000_000, "500MB", "500MB"),
        (("shelf", "room"), 4096, "4KiB", "4KiB"),
        (("shelf", "wait"), 90.0, "90s", "90s"),
        (("shelf", "count"), 5, None, ""),
        (("room",), 4096, "8KiB", ""),  # of another layer than the value
        (("nothing",), 5, None, ""),
        (("room",), True, None, ""),
    ],
)
def test_units_are_found_at_any_depth(place: tuple[str, ...], value: Any, raw: Any, text: str) -> None:
    assert written_text(Options, place, value, raw) == text
