"""The table of tokens: one row for each, with the SHA-256 of its secret."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from ostler.errors import StoreError
from ostler.store.session import current_session


class TokenRecord(NamedTuple):
    """One row; times are wall time in seconds since 1970, 0 for never."""

    name: str
    role: str
    digest: str
    created_at: float
    made_by: str
    expires_at: float
    last_used_at: float


_COLUMNS = ", ".join(TokenRecord._fields)
_INSERT = (
    f"INSERT INTO tokens (host, {_COLUMNS}) "  # noqa: S608 - our own words
    f"VALUES (?, {', '.join('?' * len(TokenRecord._fields))})"
)


class TokenRecords:
    """The tokens of one host. Each method is for use inside a write or read of the store.

    Args:
        host: This host's name.
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def list(self) -> list[TokenRecord]:
        """Return all tokens, by name."""
        rows = _connection().execute(
            f"SELECT {_COLUMNS} FROM tokens WHERE host = ? ORDER BY name",  # noqa: S608 - our own words
            (self._host,),
        )
        return [TokenRecord._make(row) for row in rows]

    def add(self, record: TokenRecord) -> None:
        """Store a token, whose name is not there yet."""
        _connection().execute(_INSERT, (self._host, *record))

    def remove(self, names: Iterable[str]) -> None:
        """Remove tokens."""
        _connection().executemany(
            "DELETE FROM tokens WHERE host = ? AND name = ?", [(self._host, name) for name in names]
        )

    def note_use(self, used_at: Iterable[tuple[str, float]]) -> None:
        """Store when tokens were last used."""
        _connection().executemany(
            "UPDATE tokens SET last_used_at = ? WHERE host = ? AND name = ?",
            [(at, self._host, name) for name, at in used_at],
        )


def _connection() -> sqlite3.Connection:
    here = current_session()
    if here is None:
        raise StoreError("tokens were used outside of store.read and store.write")
    connection: sqlite3.Connection = here.database.connection()
    return connection
