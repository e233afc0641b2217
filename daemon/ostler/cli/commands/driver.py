"""`ostler driver`: operate on single drivers of services."""

from __future__ import annotations

from ostler.cli import kit
from ostler.cli.commands.driver_reset import reset

app = kit.app(help="Operate on the drivers of services.")
app.callback()(lambda: None)
app.command()(reset)
