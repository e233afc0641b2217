"""The plugin host: finds plugins, loads each in guarded steps, and keeps a record of every one.

`discovery` walks the entry points; `host` loads what is found, with `hooks` and `declared` saying what is wrong with a
plugin's hooks and with what they return; `reference` turns the name in a configuration into a manager, driver or other
part. The host knows no manager and no driver: what a class must be is handed in. The names are imported when first
used: the command looks for entry points, and needs nothing else of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.plugins.discovery import Found, given, installed
    from ostler.plugins.host import PluginHost
    from ostler.plugins.reference import Loaded, resolve

_HOME = {
    "Found": "discovery",
    "Loaded": "reference",
    "PluginHost": "host",
    "given": "discovery",
    "installed": "discovery",
    "resolve": "reference",
}

__all__ = ["Found", "Loaded", "PluginHost", "given", "installed", "resolve"]
__getattr__ = lazy_names(__name__, _HOME)
