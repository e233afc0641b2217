"""Shows results: tables on a terminal, aligned plain text in a pipe, JSON, YAML or names if they are wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ostler.cli import invocation
from ostler.cli.formatting import display_width, printable, text_of
from ostler.cli.global_options import NAME_FORMAT, WIDE_FORMAT, YAML_FORMAT
from ostler.cli.standard_streams import unwrap
from ostler.cli.table import (
    COLUMN_GAP,
    MAX_CELL_LENGTH,
    Column,
    Table,
    align_row,
    fit_table,
    make_table,
    natural_widths,
    wrap_words,
)
from ostler.errors import InvalidInput
from ostler.printable import printable_json

if TYPE_CHECKING:
    from rich.console import Console

_DEFAULT_WIDTH = 80
_MIN_VALUE_WIDTH = 20
"""The least width of the values of `show_fields`; on a narrower terminal their lines are longer than it."""
_MAX_FITTED_ROWS = 20_000
"""The maximum number of rows that are fitted to a terminal; more are aligned as in a pipe, which is faster."""
_BOLD, _FAINT, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_GREEN, _YELLOW, _RED, _GREY = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[90m"
_STYLES = {
    "up": _GREEN, "ready": _GREEN, "loaded": _GREEN, "well": _GREEN,
    "starting": _YELLOW, "initialising": _YELLOW, "degraded": _YELLOW, "draining": _YELLOW, "disabled": _YELLOW,
    "found": _YELLOW, "paused": _YELLOW,
    "failed": _RED, "stuck": _RED, "down": _RED, "error": _RED, "stopped": _GREY, "blocked": _RED,
}  # fmt: skip


def json_wanted() -> bool:
    """Return whether results are for programs: `--json`, `-o json` or `-o yaml`."""
    return invocation.current_invocation().json


def names_wanted() -> bool:
    """Return whether only names are wanted: `-o name`."""
    return invocation.current_invocation().output.format == NAME_FORMAT


def is_quiet() -> bool:
    """Return whether confirmations and progress are not wanted: `-q`, and whatever is read by a program."""
    return json_wanted() or names_wanted() or invocation.current_invocation().output.quiet


def on_terminal(stream: TextIO | None = None) -> bool:
    """Return whether a stream (stdout by default) is a terminal that supports more than plain lines."""
    stream = unwrap(stream or sys.stdout)
    term = invocation.current_invocation().environ.get("TERM", "")
    try:
        return term not in ("", "dumb", "unknown") and stream.isatty()
    except ValueError:  # closed
        return False


def terminal_width() -> int:
    """Return the columns of the terminal: `COLUMNS`, or what the terminal itself says, or 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(unwrap(sys.stdout).fileno()).columns or _DEFAULT_WIDTH
    except (OSError, ValueError, AttributeError):
        return _DEFAULT_WIDTH


def colours_wanted(stream: TextIO | None = None) -> bool:
    """Return whether a stream (stdout by default) is a terminal, and colours were not turned off.

    They are turned off by `--no-color`, and by the environment variable `NO_COLOR`, whatever its value.
    """
    session = invocation.current_invocation()
    return on_terminal(stream) and session.output.color and "NO_COLOR" not in (session.environ or os.environ)


def say(text: str = "") -> None:
    """Print a line on stdout, `printable`; nothing with `--json` or `-o name`."""
    if not json_wanted() and not names_wanted():
        print(printable(text))  # noqa: T201 - the command's output


def hint(text: str) -> None:
    """Print a remark below a result on a terminal, `printable` and faint; nothing with `-q`."""
    if on_terminal() and not is_quiet():
        line = printable(text)
        _print_lines([f"{_FAINT}{line}{_RESET}" if colours_wanted() else line])


def confirm_done(text: str) -> None:
    """Print on stdout that something was done, `printable`; nothing with `-q`, `--json` or `-o name`."""
    if not is_quiet():
        print(printable(text))  # noqa: T201 - the command's output


def warn(text: str) -> None:
    """Print a line on stderr, `printable`, also with `--json`."""
    print(printable(text), file=sys.stderr)  # noqa: T201 - the command's output


def emit(value: object) -> None:
    """Show any value: as one JSON document with `--json`, as YAML with `-o yaml`, else as text.

    Text is the fields of a struct or mapping, a table for a list of those, a line for each item of any other list, and
    nothing for None.

    Args:
        value: Anything msgspec can encode; other values are shown as text.
    """
    if json_wanted():
        _print(to_document(value))
    elif _has_fields(value):
        show_fields(value)
    elif isinstance(value, list | tuple) and value and all(map(_has_fields, value)):
        names = dict.fromkeys(name for item in value for name in _field_names(item))
        show_table(value, list(names))
    elif isinstance(value, list | tuple):
        for item in value:
            _print(text_of(item))
    elif value is not None:
        _print(text_of(value))


def emit_item(value: object) -> None:
    """Show an item of a stream at once: a line of JSON with `--json`, a YAML document with `-o yaml`, else a line.

    Args:
        value: As for `emit`; structures are shown as JSON also without `--json`.
    """
    if invocation.current_invocation().output.format == YAML_FORMAT:
        text = f"---\n{to_document(value)}"
    elif json_wanted() or isinstance(value, dict | list) or _has_fields(value):
        text = to_json(value, indent=0)
    else:
        text = text_of(value)
    print(text, flush=True)  # noqa: T201 - the command's output


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the command's output


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


def to_document(value: object, format: str = "") -> str:  # noqa: A002 - the word of its option
    """Return a value as a document for programs: YAML with `-o yaml`, else JSON.

    Args:
        value: As for `to_json`.
        format: The format, by default the one of this run.
    """
    if (format or invocation.current_invocation().output.format) != YAML_FORMAT:
        return to_json(value)
    import msgspec  # 6 ms: not for `--help`

    from ostler.cli.yaml_text import to_yaml  # only for `-o yaml`

    try:
        return to_yaml(msgspec.json.decode(_encode_json(value)))
    except RecursionError:
        raise InvalidInput("the value is nested too deeply to be shown as YAML") from None


def _encode_json(value: object) -> bytes:
    import msgspec  # 6 ms: not for `--help`

    from ostler.cli.json_values import to_shown  # likewise

    value = to_shown(value)
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
    """Show rows as a table; with `--json` the rows themselves as a list, with `-o name` their names.

    On a terminal a table never folds: texts are shortened and columns left out, by priority, unless `--wide` is given.
    In a pipe it has all columns in full.

    Args:
        rows: Structs or other objects (columns are attributes), mappings (keys), or lists and tuples (positions).
        columns: Names of attributes or keys, or `Column` for another title, a function, alignment or priority.
        empty: The text for a table without rows on a terminal; a pipe gets the header alone.
    """
    listed = list(rows)
    if json_wanted():
        _print(to_document(listed))
        return
    table = make_table(listed, columns)
    if names_wanted():
        _print_lines(table.names())
    elif not listed and empty and on_terminal():
        if not is_quiet():
            _print(empty)
    else:
        _show_rows(table, headers=invocation.current_invocation().output.headers)


def _show_rows(table: Table, *, headers: bool) -> None:
    output = invocation.current_invocation().output
    if not on_terminal() or output.format == WIDE_FORMAT or len(table.rows) > _MAX_FITTED_ROWS:
        _write_rows(table, natural_widths(table), headers=headers)
        return
    fitted = fit_table(table, terminal_width())
    _write_rows(fitted.table, fitted.widths, headers=headers)
    if (fitted.hidden or fitted.shortened) and not output.quiet:
        output.on_shortened(fitted.hidden)


def _write_rows(table: Table, widths: Sequence[int], *, headers: bool) -> None:
    """Write the rows; on a terminal with styles, past the stream that would escape them: cells are `printable`."""
    styled = colours_wanted()
    lines = []
    if headers:
        title = COLUMN_GAP.join(align_row(table.titles, widths, table.columns)).rstrip()
        lines.append(f"{_BOLD}{title}{_RESET}" if styled else title)
    for row in table.rows:
        cells = list(align_row(row, widths, table.columns))
        if styled:
            cells = [_styled(cell, text) for cell, text in zip(cells, row, strict=True)]
        lines.append(COLUMN_GAP.join(cells).rstrip())
    _print_lines(lines)


def _styled(cell: str, text: str) -> str:
    style = _STYLES.get(text)
    return cell.replace(text, f"{style}{text}{_RESET}", 1) if style else cell


def _print_lines(lines: Sequence[str]) -> None:
    """Print lines whose texts are `printable`; styles among them reach the terminal."""
    if lines:
        print("\n".join(lines), file=unwrap(sys.stdout) if colours_wanted() else None)


def show_fields(value: object, *, names: Sequence[str | Column] = ()) -> None:
    """Show one object as a list of names and values; with `--json` as an object, with `-o name` its first value.

    Args:
        value: A struct, a mapping or any object with attributes.
        names: Which fields, in this order, as in `show_table`; by default all fields of a struct or mapping.
    """
    if json_wanted():
        _print(to_document(value))
        return
    table = make_table([value], names or _field_names(value))
    if not table.columns:
        return
    if names_wanted():
        _print_lines(table.names())
        return
    titles = [printable(column.title.replace("_", " "), MAX_CELL_LENGTH) for column in table.columns]
    _print_lines(list(_field_lines(titles, table.rows[0])))


def _field_lines(titles: Sequence[str], texts: Sequence[str]) -> Iterable[str]:
    """Yield the lines of fields: on a terminal a long value continues below itself, broken between words."""
    indent = max(map(display_width, titles)) + len(COLUMN_GAP)
    wrapped = on_terminal() and invocation.current_invocation().output.format != WIDE_FORMAT
    styled = colours_wanted()
    for title, text in zip(titles, texts, strict=True):
        lines = wrap_words(text, max(terminal_width() - indent, _MIN_VALUE_WIDTH)) if wrapped else [text]
        name = title + " " * (indent - display_width(title))
        style = _STYLES.get(text, "") if styled else ""
        yield (f"{_BOLD}{name}{_RESET}{style}{lines[0]}{_RESET}" if styled else f"{name}{lines[0]}").rstrip()
        yield from (" " * indent + line for line in lines[1:])


def heading(text: str) -> None:
    """Print a heading above a table, `printable`: bold on a terminal, nothing with `--json` or `-o name`."""
    if json_wanted() or names_wanted():
        return
    line = printable(text)
    _print_lines([f"{_BOLD}{line}{_RESET}" if colours_wanted() else line])


def rich_console(stream: TextIO | None = None) -> Console:
    """Return a rich console; only for a terminal, and for texts that are `printable`: it bypasses `EscapingStream`."""
    # 18 ms: only for what moves on a terminal.
    from rich.console import Console

    stream = stream or sys.stdout
    return Console(
        file=unwrap(stream),
        no_color=not colours_wanted(stream),
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=False,
    )
