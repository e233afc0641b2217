"""What a client prefers (RFC 7240): an operation instead of a call, and how long it waits for one to end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ostler_http.api.request import Request

_WAIT = re.compile(r"[0-9]{1,9}")


class Preferences(NamedTuple):
    """What a client prefers.

    Attributes:
        respond_async: Whether a call becomes an operation.
        wait: For how many seconds it waits for an operation to end; 0 for not at all.
        lenient: Whether texts may stand for numbers, booleans and structures.
        call_kind: The kind of method that it expects, `call` or `stream`; empty for any.
        version: The version of the method that it needs, `1.2`; empty for any.
    """

    respond_async: bool = False
    wait: int = 0
    lenient: bool = False
    call_kind: str = ""
    version: str = ""

    def applied(self) -> dict[str, str]:
        """Return the header that says which of them were applied; empty for none."""
        words = [*(["respond-async"] if self.respond_async else []), *([f"wait={self.wait}"] if self.wait else [])]
        return {"preference-applied": ", ".join(words)} if words else {}


def read_preferences(request: Request) -> Preferences:
    """Return what the header Prefer says; the first of what it says twice, and nothing of what cannot be read."""
    if b"prefer" not in request.headers:
        return Preferences()
    found: dict[str, str] = {}
    for each in request.header(b"prefer").split(","):
        name, _, value = each.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"').lower())
    wait = found.get("wait", "")
    return Preferences(
        respond_async="respond-async" in found,
        wait=int(wait) if _WAIT.fullmatch(wait) else 0,
        lenient=found.get("handling") == "lenient",
        call_kind=found.get("call-kind", ""),
        version=found.get("version", ""),
    )
