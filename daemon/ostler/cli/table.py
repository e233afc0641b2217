"""Lays out tables: declared columns with priorities, fitted to the width of a terminal; no output and no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ostler.cli.formatting import display_width, printable, text_of
from ostler.printable import truncate_with_length

COLUMN_GAP = "  "
ELLIPSIS = "…"
MAX_CELL_LENGTH = 32_768
"""The maximum number of characters of a cell; the layout of longer ones takes seconds. `--json` is not cut."""
_MIN_SHORTENED_WIDTH = 8
"""The columns of a terminal that a text keeps when it is shortened, unless its column says otherwise."""
_MIN_LAST_WIDTH = 20
"""The same for the last text of a table: a reason that is cut to less says nothing."""
_TINY_WIDTH = 4
"""The columns that each cell keeps on a terminal that is too narrow for anything else."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: Its title, shown in upper case.
        value: Name of an attribute or key of a row, or a function of the row; if empty, the title.
        right: Whether to align it to the right, as for numbers and sizes.
        priority: When a terminal is too narrow, columns with the highest number are left out first; 0 is always shown.
        min_width: Columns of the terminal to which its texts may be shortened; 0 for the default. Numbers (`right`) are
            never shortened.
        key: Whether its text names the row in arguments of commands, for `-o name`; without any it is the first column.
    """

    title: str
    value: str | Callable[[Any], object] = ""
    right: bool = False
    priority: int = 1
    min_width: int = 0
    key: bool = False

    def cell(self, row: object, index: int) -> str:
        """Return this column's text for a row as shown: `printable`, and cut to `MAX_CELL_LENGTH`."""
        return truncate_with_length(self.text(row, index), MAX_CELL_LENGTH)

    def text(self, row: object, index: int) -> str:
        """Return this column's text for a row; `index` is its position in rows that are plain sequences."""
        if callable(self.value):
            return text_of(self.value(row))
        name = self.value or self.title
        if isinstance(row, Mapping):
            return text_of(row.get(name))
        if isinstance(row, list) or type(row) is tuple:
            return text_of(row[index])
        return text_of(getattr(row, name.replace(" ", "_")))


class Table(NamedTuple):
    """The texts of a table.

    Attributes:
        columns: Its columns.
        rows: The cells of each row.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    @property
    def titles(self) -> list[str]:
        """The titles as shown."""
        return [printable(column.title.upper()) for column in self.columns]

    def names(self) -> list[str]:
        """Return the name of each row: the texts of its key columns, or of the first one."""
        keys = [index for index, column in enumerate(self.columns) if column.key] or [0]
        return [" ".join(row[index] for index in keys) for row in self.rows]


class FittedTable(NamedTuple):
    """A table as it fits on a terminal.

    Attributes:
        table: The columns that are shown, with the texts as shown.
        widths: The width of each column.
        hidden: The titles of columns that are left out.
        shortened: Whether a text was shortened.
    """

    table: Table
    widths: Sequence[int]
    hidden: Sequence[str]
    shortened: bool


def make_table(rows: Sequence[Any], columns: Sequence[str | Column]) -> Table:
    """Return the texts of rows in columns; a column that is a name alone is an attribute or key."""
    declared = [column if isinstance(column, Column) else Column(column) for column in columns]
    return Table(declared, [[column.cell(row, index) for index, column in enumerate(declared)] for row in rows])


def fit_table(table: Table, width: int) -> FittedTable:
    """Fit a table into a width: shorten texts, then leave out columns by priority; nothing is folded.

    Args:
        table: The table.
        width: Columns of the terminal.
    """
    shown = list(range(len(table.columns)))
    natural = natural_widths(table)
    while True:
        minima = _minimum_widths([table.columns[index] for index in shown], [natural[index] for index in shown])
        room = width - len(COLUMN_GAP) * (len(shown) - 1)
        droppable = [index for index in shown if table.columns[index].priority > 0]
        if sum(minima) <= room or len(shown) == 1 or not droppable:
            break
        # Of several with the same priority the last one goes.
        shown.remove(max(droppable, key=lambda index: (table.columns[index].priority, index)))
    if sum(minima) > room:
        minima = [min(each, _TINY_WIDTH) for each in minima]
    widths = _distribute([natural[index] for index in shown], minima, room)
    rows = [[shorten(row[index], size) for index, size in zip(shown, widths, strict=True)] for row in table.rows]
    return FittedTable(
        Table([table.columns[index] for index in shown], rows),
        widths,
        [column.title for index, column in enumerate(table.columns) if index not in shown],
        any(natural[index] > size for index, size in zip(shown, widths, strict=True)),
    )


def natural_widths(table: Table) -> list[int]:
    """Return the width that each column takes if nothing is shortened."""
    lines = [table.titles, *table.rows]
    return [max(map(display_width, texts)) for texts in zip(*lines, strict=True)]


def _minimum_widths(columns: Sequence[Column], natural: Sequence[int]) -> list[int]:
    """Return to which width each column may be shortened."""
    minima = []
    for index, (column, width) in enumerate(zip(columns, natural, strict=True)):
        default = _MIN_LAST_WIDTH if index == len(columns) - 1 and index else _MIN_SHORTENED_WIDTH
        smallest = max(column.min_width or default, display_width(column.title))
        minima.append(width if column.right else min(width, smallest))
    return minima


def _distribute(natural: Sequence[int], minima: Sequence[int], room: int) -> list[int]:
    """Return widths between the minima and the natural ones: what is missing is taken from the widest columns."""
    widths = list(natural)
    excess = sum(widths) - room
    while excess > 0:
        able = [index for index, width in enumerate(widths) if width > minima[index]]
        if not able:
            break
        widest = max(able, key=lambda index: widths[index])
        # Down to the second widest at once: a cell may have 32,768 characters.
        others = [widths[index] for index in able if widths[index] < widths[widest]]
        step = max(1, min(excess, widths[widest] - max([minima[widest], *others])))
        widths[widest] -= step
        excess -= step
    return widths


def shorten(text: str, width: int) -> str:
    """Return a text that takes at most `width` columns of a terminal, with an ellipsis for what was cut off."""
    if display_width(text) <= width:
        return text
    kept, used = [], 0
    for char in text:
        used += display_width(char)
        if used > width - 1:
            break
        kept.append(char)
    return "".join(kept).rstrip() + ELLIPSIS if width > 0 else ""


def wrap_words(text: str, width: int) -> list[str]:
    """Return a text as lines of at most `width` columns, broken between words; a longer word has a line of its own."""
    if display_width(text) <= width:
        return [text]
    lines, line, used = [], "", 0
    for word in text.split(" "):
        size = display_width(word)
        if line and used + 1 + size > width:
            lines.append(line)
            line, used = word, size
        else:
            line, used = (f"{line} {word}", used + 1 + size) if line else (word, size)
    return [*lines, line]


def align_row(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> Iterator[str]:
    """Yield the cells of a row, each filled with spaces to the width of its column."""
    for cell, width, column in zip(cells, widths, columns, strict=True):
        padding = " " * (width - display_width(cell))
        yield padding + cell if column.right else cell + padding
