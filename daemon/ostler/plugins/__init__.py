"""The plugin host: finds plugins, loads each in guarded steps, and keeps a record of every one.

`discovery` walks the entry points; `host` loads what is found, with `hooks` and `declared` saying what is wrong with a
plugin's hooks and with what they return; `reference` turns the name in a configuration into a manager, driver or other
part. The host knows no manager and no driver: what a class must be is handed in.
"""

from ostler.plugins.discovery import Found, given, installed
from ostler.plugins.host import PluginHost
from ostler.plugins.reference import Loaded, resolve

__all__ = ["Found", "Loaded", "PluginHost", "given", "installed", "resolve"]
