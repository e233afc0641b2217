"""Shows results: tables on a terminal, aligned plain text in a pipe, JSON with `--json`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from ostler.cli import invocation
from ostler.cli.formatting import display_width, printable, text_of
from ostler.cli.standard_streams import unwrap
from ostler.errors import InvalidInput
from ostler.printable import printable_json, truncate_with_length

if TYPE_CHECKING:
    from rich.console import Console

_COLUMN_GAP = "  "
MAX_CELL_LENGTH = 32_768
"""The maximum number of characters of a cell; the layout of longer ones takes seconds. `--json` is not cut."""
_MAX_RICH_ROWS = 2000
"""The maximum number of rows of a terminal table; more are aligned as in a pipe, which is much faster."""
_STYLES = {
    "up": "green", "ready": "green", "loaded": "green", "well": "green",
    "starting": "yellow", "initialising": "yellow", "degraded": "yellow", "draining": "yellow", "disabled": "yellow",
    "found": "yellow", "paused": "yellow",
    "failed": "red", "stuck": "red", "down": "red", "error": "red", "stopped": "bright_black", "blocked": "red",
}  # fmt: skip


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: Its title, shown in upper case.
        value: Name of an attribute or key of a row, or a function of the row; if empty, the title.
        right: Whether to align it to the right, as for numbers and sizes.
    """

    title: str
    value: str | Callable[[Any], object] = ""
    right: bool = False

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


def json_wanted() -> bool:
    """Return whether `--json` was given."""
    return invocation.current_invocation().json


def on_terminal(stream: TextIO | None = None) -> bool:
    """Return whether a stream (stdout by default) is a terminal that supports more than plain lines."""
    stream = unwrap(stream or sys.stdout)
    term = invocation.current_invocation().environ.get("TERM", "")
    try:
        return term not in ("", "dumb", "unknown") and stream.isatty()
    except ValueError:  # closed
        return False


def say(text: str = "") -> None:
    """Print a line on stdout, `printable`; nothing with `--json`."""
    if not json_wanted():
        print(printable(text))  # noqa: T201 - the command's output


def warn(text: str) -> None:
    """Print a line on stderr, `printable`, also with `--json`."""
    print(printable(text), file=sys.stderr)  # noqa: T201 - the command's output


def emit(value: object) -> None:
    """Show any value: as one JSON document with `--json`, else as text.

    Text is the fields of a struct or mapping, a table for a list of those, a line for each item of any other list, and
    nothing for None.

    Args:
        value: Anything msgspec can encode; other values are shown as text.
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
    r"""Return a value as JSON text, with characters that are not `printable` escaped (`\u202e`).

    Args:
        value: Anything msgspec can encode; other values become text.
        indent: Spaces of each level, 0 for one line; by default 2 on a terminal and one line in a pipe.

    Raises:
        InvalidInput: The value is nested too deeply.
    """
    import msgspec  # 6 ms: not for `--help`

    if indent is None:
        indent = 2 if on_terminal() else 0
    try:
        text = _encode_json(value)
        return printable_json((msgspec.json.format(text, indent=indent) if indent else text).decode())
    except RecursionError:
        raise InvalidInput("the value is nested too deeply to be shown as JSON") from None


def _encode_json(value: object) -> bytes:
    import msgspec  # 6 ms: not for `--help`

    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:  # a lone surrogate, as in a file name that is not valid UTF-8
        return msgspec.json.encode(_escape_surrogates(msgspec.to_builtins(value, enc_hook=str)))


def _escape_surrogates(value: object) -> object:
    """Return a value in which lone surrogates are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape_surrogates(key): _escape_surrogates(item) for key, item in value.items()}
    return [_escape_surrogates(item) for item in value] if isinstance(value, list) else value


def show_table(rows: Iterable[Any], columns: Sequence[str | Column], *, empty: str = "") -> None:
    """Show rows as a table; with `--json` the rows themselves as a JSON list.

    Args:
        rows: Structs or other objects (columns are attributes), mappings (keys), or lists and tuples (positions).
        columns: Names of attributes or keys, or `Column` for another title, a function, or right alignment.
        empty: The text for a table without rows on a terminal; a pipe gets the header alone.
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
    if on_terminal() and len(cells) <= _MAX_RICH_ROWS:
        _rich_table(titles, cells, heads)
    else:
        print("\n".join(align_rows([titles, *cells], [head.right for head in heads])))  # noqa: T201 - the command's output


def show_fields(value: object, *, names: Sequence[str | Column] = ()) -> None:
    """Show one object as a list of names and values; with `--json` as a JSON object.

    Args:
        value: A struct, a mapping or any object with attributes.
        names: Which fields, in this order, as in `show_table`; by default all fields of a struct or mapping.
    """
    if json_wanted():
        print(to_json(value))  # noqa: T201 - the command's output
        return
    fields = [name if isinstance(name, Column) else Column(name) for name in names or _field_names(value)]
    if not fields:
        return
    pairs = [[printable(field.title.replace("_", " "), MAX_CELL_LENGTH), field.cell(value, 0)] for field in fields]
    if on_terminal() and len(pairs) <= _MAX_RICH_ROWS:
        _rich_fields(pairs)
    else:
        print("\n".join(align_rows(pairs, [False, False])))  # noqa: T201 - the command's output


def heading(text: str) -> None:
    """Print a heading above a table, `printable`: bold on a terminal, nothing with `--json`."""
    if json_wanted():
        return
    if on_terminal():
        from rich.text import Text  # rich takes 18 ms: only for a terminal, here and below

        rich_console().print(Text(printable(text), style="bold"))
    else:
        print(printable(text))  # noqa: T201 - the command's output


def align_rows(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Return rows as lines with aligned columns, without trailing spaces."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            padding = " " * (width - display_width(cell))
            cells.append(padding + cell if to_right else cell + padding)
        lines.append(_COLUMN_GAP.join(cells).rstrip())
    return lines


def rich_console(stream: TextIO | None = None) -> Console:
    """Return a rich console; only for a terminal, and for texts that are `printable`: it bypasses `EscapingStream`."""
    # 18 ms: only for a terminal.
    from rich.console import Console

    return Console(file=unwrap(stream or sys.stdout), highlight=False, emoji=False, markup=False, soft_wrap=False)


def _rich_table(titles: Sequence[str], cells: Sequence[Sequence[str]], heads: Sequence[Column]) -> None:
    # 18 ms: only for a terminal.
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, head in zip(titles, heads, strict=True):
        table.add_column(Text(title), justify="right" if head.right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    rich_console().print(table)


def _rich_fields(pairs: Sequence[Sequence[str]]) -> None:
    # 18 ms: only for a terminal.
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(Text(name, style="bold"), Text(text, style=_STYLES.get(text, "")))
    rich_console().print(table)
