"""Quotes the line of a problem, with a mark below the value, and no value that may be a secret.

A value is quoted only if its option is known and is not a secret; a value of an unknown key, which may be a misspelt
secret, is replaced by `***`, and comments are left out. In a text that does not parse no value is quoted at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ostler.config.options import OptionsModel, option_metadata
from ostler.config.renamed_options import earlier_names
from ostler.config.secret_references import MASK
from ostler.config.toml_positions import KeyPath, TextPosition, TomlLayout, statement_starts, text_offset
from ostler.config.type_descriptions import (
    ConstrainedType,
    is_secret_type,
    options_models_of,
    type_of_field,
    type_of_item,
)
from ostler.errors import SourceLine

Models = Mapping[tuple[str, ...], type[OptionsModel]]
"""The models of tables, by path."""

_WIDTH = 100
"""Maximum number of characters of a quoted line; the part around the mark is kept."""
_KEY_OR_HEADER = re.compile(r"""[ \t]*(?:\[\[?(?:"(?:\\.|[^"\\])*"|'[^']*'|[^"'#\]])*\]{0,2}|[^=#]*=?)""")
_TOKEN = re.compile(r"""\[\[?[^#\n]*\]|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+""")


def quote_value(
    text: str, layout: TomlLayout, position: TextPosition, may_quote: Callable[[KeyPath], bool]
) -> SourceLine:
    """Return the line of a position in a valid text, with a mark under the value, key or header that begins there.

    Args:
        text: The text.
        layout: Its layout.
        position: The place of the problem.
        may_quote: Whether the value of a path may be shown.
    """
    at = text_offset(text, position)
    start = text.rfind("\n", 0, at) + 1
    end = _line_end(text, at)
    ends = [found[1] for found in layout.values.values() if found[0] == at]
    token = _TOKEN.match(text, at)
    mark_end = min(max(ends) if ends else token.end() if token else at + 1, end)
    hidden = sorted(
        (max(first, start), min(last, end))
        for path, (first, last) in layout.values.items()
        if first < end and last > start and not may_quote(path)
    )
    visible_end = max(
        [mark_end, *(min(last, end) for first, last in layout.values.values() if first < end and last > start)]
    )
    pieces: list[str] = []
    begin, length, place = 0, 0, start
    for first, last in [*hidden, (visible_end, visible_end)]:
        if first < place:  # inside a value that is hidden already
            continue
        if place <= at < first or (at == first and not length):
            begin = sum(map(len, pieces)) + at - place
            length = (len(MASK) if at == first and last > first else mark_end - at) or 1
        pieces += [text[place:first], MASK if last > first else ""]
        place = last
    return _cut("".join(pieces), begin, length)


def quote_syntax(text: str, position: TextPosition) -> SourceLine | None:
    """Return the line of a syntax error up to the `=` or the end of the header: its value may be part of a secret."""
    at = text_offset(text, position)
    start = text.rfind("\n", 0, at) + 1
    line = text[start : _line_end(text, at)]
    if start + len(line) - len(line.lstrip(" \t")) not in statement_starts(text):
        return None  # it continues a value
    found = _KEY_OR_HEADER.match(line)
    shown = found[0] if found else ""
    if not shown.lstrip().startswith("[") and not shown.endswith("="):
        return None
    rest = " …" if len(line.rstrip()) > len(shown) else ""
    return _cut(shown + rest, min(at - start, len(shown) + len(rest) - 1 if rest else len(shown)), 1)


def may_quote_value(models: Models, path: KeyPath) -> bool:
    """Return whether the value of a path may be shown: its option is known, and it is not a secret.

    A table or list may be shown, as its entries are judged each by itself.
    """
    for length in range(len(path) - 1, 0, -1):
        model = models.get(tuple(map(str, path[:length])))
        if model is not None:
            return _may_quote_option(model, path[length:])
    return False


def _may_quote_option(model: type[OptionsModel], path: KeyPath) -> bool:
    kind: ConstrainedType | None = ConstrainedType(model)
    for part in path:
        kind = _type_at(kind, part)
        if kind is None:
            return False
    return True


def _type_at(kind: ConstrainedType | None, part: str | int) -> ConstrainedType | None:
    """Return the type of an entry, None if it is unknown or a secret."""
    models = options_models_of(kind) if kind else []
    if models and isinstance(part, str):
        name = earlier_names(models).get(part, part)
        fields = [model.model_fields[name] for model in models if name in model.model_fields]
        if not fields or any(option_metadata(field).secret or is_secret_type(type_of_field(field)) for field in fields):
            return None
        inner: ConstrainedType | None = type_of_field(fields[0])
    else:
        inner = type_of_item(kind, part) if kind else None
    return None if inner is None or is_secret_type(inner) else inner


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - 1 if end > at and text[end - 1] == "\r" else end


def _cut(line: str, at: int, length: int) -> SourceLine:
    """Return the part of a line around its mark."""
    line = line.rstrip()
    if len(line) <= _WIDTH:
        return SourceLine(line, at + 1, max(1, min(length, len(line) - at)))
    first = max(0, min(at - _WIDTH // 3, len(line) - _WIDTH))
    shown = line[first : first + _WIDTH]
    before, after = ("…" if first else ""), ("…" if first + _WIDTH < len(line) else "")
    return SourceLine(f"{before}{shown}{after}", at - first + len(before) + 1, max(1, min(length, first + _WIDTH - at)))
