"""`ostler http …`."""

from __future__ import annotations

from ostler.cli import kit

app = kit.app(help="Show where HTTP services listen and what they serve")
