"""How results are shown: tables on a terminal, aligned plain text in a pipe, JSON with `--json`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from ostler.cli import session
from ostler.cli.streams import behind
from ostler.cli.words import printable, printed_width, text_of
from ostler.errors import InvalidInput
from ostler.printable import printable_json, shortened

if TYPE_CHECKING:
    from rich.console import Console

_GAP = "  "
CELL_LIMIT = 32_768
"""The most characters of one cell; laying out more takes a terminal table seconds. `--json` has all of it."""
_DRAWN_ROWS = 2000
"""The most rows that are laid out for a terminal; more are aligned as in a pipe, which is much faster."""
_STYLES = {
    "up": "green", "ready": "green", "loaded": "green", "well": "green",
    "starting": "yellow", "initialising": "yellow", "degraded": "yellow", "draining": "yellow", "disabled": "yellow",
    "found": "yellow", "paused": "yellow",
    "failed": "red", "stuck": "red", "down": "red", "error": "red", "stopped": "bright_black", "blocked": "red",
}  # fmt: skip


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: What stands above it; shown in upper case.
        value: Name of an attribute or key of a row, or a function of the row; the title when empty.
        right: Whether it is aligned to the right, as numbers and sizes are.
    """

    title: str
    value: str | Callable[[Any], object] = ""
    right: bool = False

    def cell(self, row: object, index: int) -> str:
        """Return this column's text for a row as it is shown: `printable`, and no longer than `CELL_LIMIT`."""
        return shortened(self.of(row, index), CELL_LIMIT)

    def of(self, row: object, index: int) -> str:
        """Return this column's text for a row; `index` counts for rows that are plain sequences."""
        if callable(self.value):
            return text_of(self.value(row))
        name = self.value or self.title
        if isinstance(row, Mapping):
            return text_of(row.get(name))
        if isinstance(row, list) or type(row) is tuple:
            return text_of(row[index])
        return text_of(getattr(row, name.replace(" ", "_")))


def json_wanted() -> bool:
    """Return whether `--json` was given."""
    return session.current().json


def on_terminal(stream: TextIO | None = None) -> bool:
    """Return whether a stream (stdout by default) is a terminal that can do more than print lines."""
    stream = behind(stream or sys.stdout)
    term = session.current().environ.get("TERM", "")
    try:
        return term not in ("", "dumb", "unknown") and stream.isatty()
    except ValueError:  # closed already
        return False


def say(text: str = "") -> None:
    """Print one line for people on stdout, `printable`; nothing with `--json`."""
    if not json_wanted():
        print(printable(text))  # noqa: T201 - the command's output


def warn(text: str) -> None:
    """Print one line for people on stderr, `printable`, in every mode."""
    print(printable(text), file=sys.stderr)  # noqa: T201 - the command's output


def emit(value: object) -> None:
    """Show any value: one JSON document with `--json`, else text.

    People see the fields of a struct or mapping, a table for a list of those, a line for each item of any other list,
    and nothing for None.

    Args:
        value: Anything msgspec can encode; what it cannot is shown as text.
    """
    if json_wanted():
        print(to_json(value))  # noqa: T201 - the command's output
    elif _has_fields(value):
        show_fields(value)
    elif isinstance(value, list | tuple) and value and all(map(_has_fields, value)):
        names = dict.fromkeys(name for item in value for name in _field_names(item))
        show_table(value, list(names))
    elif isinstance(value, list | tuple):
        for item in value:
            print(text_of(item))  # noqa: T201 - the command's output
    elif value is not None:
        print(text_of(value))  # noqa: T201 - the command's output


def _has_fields(value: object) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "__struct_fields__")


def _field_names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(name) for name in value]
    return list(value.__struct_fields__ if hasattr(value, "__struct_fields__") else vars(value))


def to_json(value: object, *, indent: int | None = None) -> str:
    r"""Return a value as JSON text, in which what is not `printable` is escaped (`\u202e`).

    Args:
        value: Anything msgspec can encode; what it cannot becomes text.
        indent: Spaces for each level, 0 for one line; by default 2 for a terminal and one line for a pipe.

    Raises:
        InvalidInput: Lists and tables lie too deep in each other.
    """
    import msgspec

    if indent is None:
        indent = 2 if on_terminal() else 0
    try:
        text = _encoded(value)
        return printable_json((msgspec.json.format(text, indent=indent) if indent else text).decode())
    except RecursionError:
        raise InvalidInput("the value has lists and tables too deep in each other to be shown as JSON") from None


def _encoded(value: object) -> bytes:
    import msgspec

    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:  # half of a surrogate pair: a file name that is no UTF-8 has some
        return msgspec.json.encode(_whole(msgspec.to_builtins(value, enc_hook=str)))


def _whole(value: object) -> object:
    """Return a value in which halves of surrogate pairs are written as escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def show_table(rows: Iterable[Any], columns: Sequence[str | Column], *, empty: str = "") -> None:
    """Show rows as a table; with `--json` the rows themselves as a JSON list.

    Args:
        rows: Structs or other objects (columns are attributes), mappings (keys), or lists and tuples (positions).
        columns: Names of attributes or keys, or `Column` for another title, a function, or right alignment.
        empty: What a terminal shows instead of a table without rows; a pipe gets the bare header.
    """
    listed = list(rows)
    if json_wanted():
        print(to_json(listed))  # noqa: T201 - the command's output
        return
    heads = [column if isinstance(column, Column) else Column(column) for column in columns]
    if not listed and empty and on_terminal():
        print(empty)  # noqa: T201 - the command's output
        return
    titles = [printable(head.title.upper()) for head in heads]
    cells = [[head.cell(row, index) for index, head in enumerate(heads)] for row in listed]
    if on_terminal() and len(cells) <= _DRAWN_ROWS:
        _rich_table(titles, cells, heads)
    else:
        print("\n".join(aligned([titles, *cells], [head.right for head in heads])))  # noqa: T201 - the command's output


def show_fields(value: object, *, names: Sequence[str | Column] = ()) -> None:
    """Show one thing as a list of names and values; with `--json` the thing itself as a JSON object.

    Args:
        value: A struct, a mapping or any object with attributes.
        names: Which fields, in which order, as in `show_table`; by default all of a struct or mapping.
    """
    if json_wanted():
        print(to_json(value))  # noqa: T201 - the command's output
        return
    fields = [name if isinstance(name, Column) else Column(name) for name in names or _field_names(value)]
    if not fields:
        return
    pairs = [[printable(field.title.replace("_", " "), CELL_LIMIT), field.cell(value, 0)] for field in fields]
    if on_terminal() and len(pairs) <= _DRAWN_ROWS:
        _rich_fields(pairs)
    else:
        print("\n".join(aligned(pairs, [False, False])))  # noqa: T201 - the command's output


def heading(text: str) -> None:
    """Print a heading above a table, `printable`: bold on a terminal, nothing with `--json`."""
    if json_wanted():
        return
    if on_terminal():
        from rich.text import Text

        console().print(Text(printable(text), style="bold"))
    else:
        print(printable(text))  # noqa: T201 - the command's output


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Return rows as lines with aligned columns, without spaces at the end of a line."""
    widths = [max(map(printed_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            padding = " " * (width - printed_width(cell))
            cells.append(padding + cell if to_right else cell + padding)
        lines.append(_GAP.join(cells).rstrip())
    return lines


def console(stream: TextIO | None = None) -> Console:
    """Return a rich console; only for a terminal, and for texts that are `printable`: it writes around the escapes."""
    from rich.console import Console

    return Console(file=behind(stream or sys.stdout), highlight=False, emoji=False, markup=False, soft_wrap=False)


def _rich_table(titles: Sequence[str], cells: Sequence[Sequence[str]], heads: Sequence[Column]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, head in zip(titles, heads, strict=True):
        table.add_column(Text(title), justify="right" if head.right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console().print(table)


def _rich_fields(pairs: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(Text(name, style="bold"), Text(text, style=_STYLES.get(text, "")))
    console().print(table)
