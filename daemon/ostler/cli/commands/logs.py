"""`ostler logs`: another name of `ostler log`, as in other tools."""

from __future__ import annotations

from ostler.cli import kit
from ostler.cli.commands.log import log

app = kit.app(group=False)
app.command()(log)
