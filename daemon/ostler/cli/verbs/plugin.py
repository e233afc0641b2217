"""`ostler plugin`: what was found, what of it was loaded, and why not the rest."""

from __future__ import annotations

from ostler.cli import kit
from ostler.types import CONTROL_TOPIC, PluginStatus

app = kit.app(help="List plugins with their state, check them, or begin a new one.")

COLUMNS = [
    kit.Column("plugin", "name"),
    kit.Column("state"),
    kit.Column("version"),
    kit.Column("from", "distribution"),
    kit.Column("required"),
    kit.Column("loaded in", lambda plugin: kit.human_duration(plugin.seconds) if plugin.seconds else "-", right=True),
    kit.Column("hooks", lambda plugin: [hook.removeprefix("ostler_") for hook in plugin.hooks]),
    kit.Column("why"),
]


@app.command("list")
def list_plugins() -> None:
    """List every plugin that the daemon found.

    With its state and why, version, hooks, and how long it took to load.
    """
    with kit.client() as client:
        plugins = client.call(CONTROL_TOPIC, "plugin_list", type=list[PluginStatus])
    kit.show_table(plugins, COLUMNS, empty="No plugins are installed.")
