"""The plugin host: finds plugins, loads each in guarded steps, and keeps a record of every one.

`discovery` walks the entry points, `host` loads what is found and gathers what it declares, `reference` turns the name in
a configuration into a manager or driver. The host knows no manager and no driver: what a class must fulfil is handed in.
"""

from ostler.plugins.host import PluginHost
from ostler.plugins.reference import Loaded, resolve

__all__ = ["Loaded", "PluginHost", "resolve"]
