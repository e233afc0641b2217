from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.cli.formatting import display_width
from ostler.cli.table import Column, Table, fit_table, make_table, shorten, wrap_words

COLUMNS = [
    Column("id", priority=0, min_width=9),
    Column("host", priority=3),
    Column("size", right=True, priority=0),
    Column("since", priority=2),
    Column("why", priority=0),
]
ROWS = [
    ["0198f3c2-aaaa-7bbb-8ccc-000000000001", "node1", "500", "5min 3s", "the backend is not reachable: no route to it"],
    ["0198f3c2-aaaa-7bbb-8ccc-000000000002", "node22", "7", "20s", "-"],
]


def width_of(table: Table, widths: object) -> int:
    return sum(widths) + 2 * (len(table.columns) - 1)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("width", "titles", "shortened"),
    [
        (200, ["id", "host", "size", "since", "why"], False),
        (100, ["id", "host", "size", "since", "why"], True),
        (55, ["id", "host", "size", "since", "why"], True),
        (50, ["id", "size", "since", "why"], True),
        (40, ["id", "size", "why"], True),
        (10, ["id", "size", "why"], True),
    ],
)
def test_texts_are_shortened_before_columns_go_by_priority(width: int, titles: list[str], shortened: bool) -> None:
    fitted = fit_table(Table(COLUMNS, ROWS), width)
    assert [column.title for column in fitted.table.columns] == titles
    assert fitted.shortened is shortened
    assert sorted([*titles, *fitted.hidden]) == sorted(column.title for column in COLUMNS)
    if width >= 20:
        assert width_of(fitted.table, fitted.widths) <= width


def test_numbers_are_never_shortened() -> None:
    assert [row[1] for row in fit_table(Table(COLUMNS, ROWS), 40).table.rows] == ["500", "7"]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12), st.booleans()), min_size=1, max_size=8),
    st.text(max_size=60),
    st.integers(1, 200),
)
def test_whatever_is_declared_each_cell_fits_its_column(
    declared: list[tuple[int, int, bool]], text: str, width: int
) -> None:
    columns = [
        Column(f"c{index}", right=right, priority=priority, min_width=least)
        for index, (priority, least, right) in enumerate(declared)
    ]
    fitted = fit_table(make_table([dict.fromkeys((column.title for column in columns), text)], columns), width)
    assert fitted.table.columns
    for row in fitted.table.rows:
        assert all(display_width(cell) <= size for cell, size in zip(row, fitted.widths, strict=True))


def test_wide_characters_count_twice_where_a_text_is_cut() -> None:
    assert shorten("日本語テキスト", 8) == "日本語…"
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
    assert shorten("abcd", 0) == ""


def test_lines_break_between_words_and_never_within_one() -> None:
    assert wrap_words("one two three", 8) == ["one two", "three"]
    assert wrap_words("/srv/a/very/long/path is it", 10) == ["/srv/a/very/long/path", "is it"]
    assert wrap_words("short", 10) == ["short"]


def test_a_row_is_named_by_its_key_columns_or_its_first() -> None:
    assert Table(COLUMNS, ROWS).names() == [row[0] for row in ROWS]
    keyed = [Column("service", key=True), Column("n"), Column("task", key=True)]
    assert Table(keyed, [["volume", "1", "report"]]).names() == ["volume report"]
