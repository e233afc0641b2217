"""Lists in pages: `limit`, an opaque `cursor`, and the next page in the header `Link`.

A cursor names the last item that was seen, and not a place: what comes and goes meanwhile shifts no page.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import urlencode

import msgspec

from ostler import InvalidInput
from ostler_http.api.problems import HttpError

if TYPE_CHECKING:
    from ostler_http.api.request import Request

MAX_LIMIT = 1000
MAX_ROWS = 10_000
"""The most rows that the daemon lists at once."""
_SLACK = 50
"""Rows that may have come since the page before; if more have, all are read."""
Key: TypeAlias = Callable[[Any], Any]
"""Returns by what a row is known: what JSON can say, and, of a sorted list, can be compared."""


class Cursor(NamedTuple):
    """The key of the last row that was seen, and how many were seen."""

    key: Any
    seen: int


class Page(NamedTuple):
    """The rows of a page, and the headers that lead to the next one."""

    rows: list[Any]
    headers: dict[str, str]


def sorted_page(request: Request, query: dict[str, str], rows: Sequence[Any], key: Key, limit: int = MAX_LIMIT) -> Page:
    """Return a page of a list that is in the order of its keys.

    Args:
        request: The request.
        query: Its query, with `limit` and `cursor`.
        rows: All rows.
        key: By what a row is known.
        limit: How many rows a page has by default.

    Raises:
        HttpError: `limit` or `cursor` is not valid.
    """
    most = request.number(query, "limit", limit, MAX_LIMIT)
    cursor = _read_cursor(query)
    found = sorted(rows, key=key)
    if cursor is not None:
        try:
            found = [row for row in found if key(row) > cursor.key]
        except TypeError:
            raise _bad_cursor() from None
    return _page(request, query, found, most, key, 0)


async def newest_page(
    request: Request, query: dict[str, str], fetch: Callable[[int], Awaitable[list[Any]]], key: Key, limit: int = 100
) -> Page:
    """Return a page of a list that grows at its end, the newest row first.

    Args:
        request: The request.
        query: Its query, with `limit` and `cursor`.
        fetch: Returns so many of the newest rows, the oldest of them first.
        key: By what a row is known.
        limit: How many rows a page has by default.

    Raises:
        HttpError: `limit` or `cursor` is not valid.
        OstlerError: What `fetch` raised.
    """
    most = request.number(query, "limit", limit, MAX_LIMIT)
    cursor = _read_cursor(query)
    if cursor is None:
        return _page(request, query, (await fetch(most + 1))[::-1], most, key, 0)
    for count in (min(max(0, cursor.seen) + most + 1 + _SLACK, MAX_ROWS), MAX_ROWS):
        rows = (await fetch(count))[::-1]
        place = next((number for number, row in enumerate(rows) if key(row) == cursor.key), None)
        is_cut = len(rows) >= count
        if place is not None and (not is_cut or count == MAX_ROWS or len(rows) - place - 1 > most):
            if place + 1 == MAX_ROWS:
                raise _too_many()
            return _page(request, query, rows[place + 1 :], most, key, place + 1, is_cut=is_cut)
        if not is_cut:
            break
    error = InvalidInput("the row that the cursor names is no longer listed", hint="begin again without `cursor`")
    raise HttpError(410, error)


def _page(
    request: Request, query: dict[str, str], rows: list[Any], most: int, key: Key, seen: int, *, is_cut: bool = False
) -> Page:
    """Return a page; `is_cut` says that there are more rows than were listed, so that it cannot be the last one."""
    shown = rows[:most]
    if (len(rows) <= most and not is_cut) or not shown:
        return Page(shown, {})
    cursor = _write_cursor(Cursor(key(shown[-1]), seen + len(shown)))
    following = urlencode({**query, "limit": str(most), "cursor": cursor})
    root = request.scope.get("root_path", "")
    return Page(shown, {"link": f'<{root}{request.path}?{following}>; rel="next"'})


def _too_many() -> HttpError:
    error = InvalidInput(
        f"the list goes on, but only its newest {MAX_ROWS} rows can be listed",
        hint="choose from it by its query parameters; the openapi.json has them",
    )
    return HttpError(400, error)


def _write_cursor(cursor: Cursor) -> str:
    return urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _read_cursor(query: dict[str, str]) -> Cursor | None:
    text = query.get("cursor")
    if text is None:
        return None
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        found = msgspec.json.decode(raw, type=Cursor)
    except (ValueError, RecursionError):  # UnicodeEncodeError, binascii.Error and msgspec.DecodeError are some
        raise _bad_cursor() from None
    return found


def _bad_cursor() -> HttpError:
    error = InvalidInput("`cursor` is not valid", hint="take it from the header Link of the page before")
    return HttpError(400, error)
