"""The spellings in which a secret is looked for: as it is, escaped, in base64, in hexadecimal, and one in another.

Percent-encoding, HTML references and backslashes are undone in the text that is looked through (`escapes`), however
often and wherever they stand. So here are only the spellings of which that is not true, and what is left of an escaped
secret after the same decoding. They are ordered by how likely they are: of a long secret only the first ones are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import islice

from ostler.redaction.escapes import decode_steps

MASK = "***"
MIN_SECRET_LENGTH = 6
"""Characters of the shortest value that is looked for in texts; a shorter one is hidden by its name alone."""
MIN_LINE_LENGTH = 16
"""Characters of a line, of a secret of several lines, that is looked for by itself."""
_MIN_LINE_CHARACTERS = 6
"""Different characters of such a line: a ruler is no secret."""
_MIN_SPELLINGS_SIZE = 128 * 1024
_SPELLINGS_SIZE_FACTOR = 6
"""The characters of all spellings of a secret together: as many times its own, or that least if it is short."""
_MAX_LINES = 1000
_MAX_ENCODED_LINES = 64
"""Of a secret of more lines than that, the lines are not looked for in base64 and in hexadecimal."""

Value = str | bytes


class SpellingExtent(IntEnum):
    """How many spellings of a value are looked for."""

    PLAIN = 0
    """Itself alone."""
    USUAL = 1
    """Escaped, in base64 and in hexadecimal."""
    NESTED = 2
    """Also one of these in another."""


def spellings_of(value: Value, extent: SpellingExtent = SpellingExtent.NESTED) -> tuple[str, ...]:
    """Return the spellings of a secret that are looked for; those that are too short are left out."""
    if len(value) < MIN_SECRET_LENGTH:
        return ()
    most = max(_MIN_SPELLINGS_SIZE, _SPELLINGS_SIZE_FACTOR * len(value))
    found: dict[str, None] = {}
    size = 0
    for form in _spellings(value, extent):
        if len(form) < MIN_SECRET_LENGTH or form in found:
            continue
        size += len(form)
        if found and size > most:
            break
        found[form] = None
    return tuple(found)


def _spellings(value: Value, extent: SpellingExtent) -> Iterator[str]:
    texts = _texts(value)
    yield from texts
    if extent is SpellingExtent.PLAIN:
        return
    lines = list(islice(_lines(texts[0]), _MAX_LINES))
    yield from lines
    for text in texts:
        yield from _decoded_spellings(text)
    raw = _encodings(value)
    yield from _encoded_spellings(raw)
    for line in lines:
        yield from _decoded_spellings(line)
    if len(lines) <= _MAX_ENCODED_LINES:
        yield from _encoded_spellings([line.encode("utf-8", "surrogatepass") for line in lines])
    if extent is SpellingExtent.NESTED:
        yield from _nested_spellings(texts[0], raw[0])


def _texts(value: Value) -> list[str]:
    """Return a value as text: bytes as they read when each is a character, and as UTF-8."""
    if isinstance(value, bytes):
        return [value.decode("latin-1"), value.decode("utf-8", "backslashreplace")]
    return list(dict.fromkeys((value, value.strip())))


def _encodings(value: Value) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    data = [value.encode("utf-8", "surrogatepass")]
    if (stripped := value.strip()) != value:
        data.append(stripped.encode("utf-8", "surrogatepass"))
    if not value.isascii():  # passwords of Basic authentication are Latin-1 in many a library
        try:
            data.append(value.encode("latin-1"))
        except UnicodeEncodeError:
            pass
    return data


def _lines(text: str) -> Iterator[str]:
    lines = text.splitlines()
    for line in map(str.strip, lines) if len(lines) > 1 else ():
        if len(line) >= MIN_LINE_LENGTH and not line.startswith("-----") and len(set(line)) >= _MIN_LINE_CHARACTERS:
            yield line


def _escaped(text: str) -> Iterator[str]:
    """Yield a text escaped in the ways of which something is left after decoding: letters, quotes."""
    # A command that knows no secret needs none of the modules that the functions below import: 4 ms.
    import json
    import shlex

    if text.isalnum() and text.isascii():
        return
    yield json.dumps(text)[1:-1]
    yield repr(text)[1:-1]
    if "'" in text:
        yield shlex.quote(text)[1:-1]
        yield text.replace("'", "'\\''")
    if not text.isascii():
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield repr(text.encode("utf-8", "surrogatepass"))[2:-1]
        yield ascii(text)[1:-1]


def _variants(text: str) -> Iterator[str]:
    """Yield a text as it is escaped, and what of that is different in a form, in bytes, or without backslashes."""
    for form in (text, *_escaped(text)):
        yield form
        if " " in form:
            yield form.replace(" ", "+")
        if not form.isascii():
            yield form.encode("utf-8", "surrogatepass").decode("latin-1")
    if "'" in text:  # the quote of a shell, as JSON or Python has it, when that is decoded
        yield text.replace("'", "'''")


def _decoded_spellings(text: str) -> Iterator[str]:
    """Yield what a secret is after the rounds of decoding that a text is put through that is looked through."""
    for form in _variants(text):
        shortest = form
        for shortest, _ in decode_steps(form):
            yield shortest
        if shortest is form or len(shortest) < MIN_SECRET_LENGTH:
            # Nothing to decode; or too little is left, so that it has to be known with its escapes.
            yield form
            yield form.replace("\\", "\\\\")


def _encoded_spellings(values: Iterable[bytes]) -> Iterator[str]:
    """Yield bytes in base64 and in hexadecimal, the usual spellings of all of them first."""
    values = list(values)
    for raw in values:
        yield from _base64_cores(raw)
    for separator in ("", ":", " ", "+"):  # the last one is a blank in a form
        for raw in values:
            text = raw.hex(separator) if separator else raw.hex()
            yield text
            yield text.upper()


def _base64_cores(raw: bytes) -> Iterator[str]:
    """Yield what a value is in base64 wherever in a longer text it begins: of each alignment what it alone decides."""
    from binascii import b2a_base64  # see `_escaped`

    for before in range(3):
        text = b2a_base64(bytes(before) + raw, newline=False).decode("ascii")
        core = text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield core
        if "+" in core or "/" in core:
            yield core.replace("+", "-").replace("/", "_")


def _nested_spellings(text: str, raw: bytes) -> Iterator[str]:
    """Yield base64 and hexadecimal of a secret in base64 or hexadecimal, and of what is escaped."""
    from base64 import b64encode  # see `_escaped`

    yield from _encoded_spellings([*(form.encode("ascii") for form in _encoded_spellings([raw])), b64encode(raw)])
    escaped = dict.fromkeys((*_escaped(text), *_quoted(text)))
    yield from _encoded_spellings([form.encode("utf-8", "surrogatepass") for form in escaped if form != text])


def _quoted(text: str) -> Iterator[str]:
    """Yield a text as it stands in a URL, in HTML, and in JSON with slashes that are escaped too."""
    from urllib.parse import quote, quote_plus  # see `_escaped`

    raw = text.encode("utf-8", "surrogatepass")
    for form in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield form
        yield _lower_case_escapes(form)
    yield from (_html(text), _html(text, '"'), _html(text, '"', "'"))
    if "/" in text:
        for form in (text, *_escaped(text)):
            yield form.replace("/", "\\/")


def _lower_case_escapes(quoted: str) -> str:
    """Return a URL-encoded text whose escapes are in lower case, as some libraries write them."""
    first, *rest = quoted.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _html(text: str, *quotes: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in quotes:
        text = text.replace(mark, "&quot;" if mark == '"' else "&#x27;")
    return text


__all__ = ["MASK", "MIN_LINE_LENGTH", "MIN_SECRET_LENGTH", "SpellingExtent", "Value", "spellings_of"]
