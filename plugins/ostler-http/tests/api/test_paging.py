from __future__ import annotations

import re
from urllib.parse import parse_qsl

import pytest

from ostler_http.api.paging import MAX_ROWS, newest_page
from ostler_http.api.problems import HttpError
from ostler_http.api.request import BodyLimits, Departures, Request


class Rows:
    """A list that grows: its newest rows, the oldest of them first, as the daemon lists them."""

    def __init__(self, count):
        self.rows = list(range(count))
        self.asked = 0

    def grow(self, count):
        self.rows += range(len(self.rows), len(self.rows) + count)

    async def fetch(self, count):
        self.asked += count
        return self.rows[-count:]

    async def page(self, query):
        request = Request({"method": "GET", "path": "/rows", "headers": []}, None, None, BodyLimits(), Departures())
        page = await newest_page(request, query, self.fetch, lambda row: row)
        found = re.search(r"\?(.*)>", page.headers.get("link", ""))
        return page.rows, dict(parse_qsl(found[1])) if found else None


async def walk(rows, limit, growth=0):
    """Return all rows that a client sees that follows the links, while rows come."""
    seen, query = [], {"limit": str(limit)}
    while query is not None:
        found, query = await rows.page(query)
        seen += found
        rows.grow(growth)
    return seen


@pytest.mark.parametrize("growth", [0, 1, 49, 50, 51, 60, 200])
@pytest.mark.parametrize("limit", [1, 7, 50])
def test_every_row_is_seen_once_however_many_come_meanwhile(run, growth, limit):
    assert run(walk(Rows(30), limit, growth)) == list(range(29, -1, -1))


def test_a_list_without_rows_has_one_empty_page(run):
    assert run(walk(Rows(0), 10)) == []


def test_a_list_that_is_too_long_says_so_and_does_not_seem_to_end(run):
    rows = Rows(MAX_ROWS + 50)
    seen = []

    async def follow():
        query = {"limit": "1000"}
        while query is not None:
            found, query = await rows.page(query)
            seen.extend(found)

    with pytest.raises(HttpError, match="goes on") as caught:
        run(follow())
    assert caught.value.status == 400
    assert seen == list(range(MAX_ROWS + 49, 49, -1))


def test_the_first_pages_read_little(run):
    rows = Rows(5000)

    async def two_pages():
        _, query = await rows.page({"limit": "10"})
        await rows.page(query)

    run(two_pages())
    assert rows.asked < 100
