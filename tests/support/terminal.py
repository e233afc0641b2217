"""A terminal, for what is shown differently there."""

from __future__ import annotations

import io


class Terminal(io.StringIO):
    """A stream that says of itself that it is a terminal, and keeps what is written."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True
