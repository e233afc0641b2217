"""The plugin host: finds plugins, loads each in guarded steps, and keeps a record of every one.

`discovery` reads the entry points; `plugin_host` loads what is found, `hook_implementations` and `hook_results` check
the hooks and what they return; `import_path` resolves the name in a configuration to a manager, driver or other part.
Not here: what a manager or driver must be (the contract is passed in). The names are imported when first used: the
command looks for entry points, and needs nothing else of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.plugins.discovery import DiscoveredPlugin, in_memory_plugin, installed_plugins
    from ostler.plugins.import_path import ResolvedObject, resolve_object
    from ostler.plugins.plugin_host import PluginHost

_MODULE_BY_NAME = {
    "DiscoveredPlugin": "discovery",
    "ResolvedObject": "import_path",
    "PluginHost": "plugin_host",
    "in_memory_plugin": "discovery",
    "installed_plugins": "discovery",
    "resolve_object": "import_path",
}

__all__ = [
    "DiscoveredPlugin",
    "PluginHost",
    "ResolvedObject",
    "in_memory_plugin",
    "installed_plugins",
    "resolve_object",
]
__getattr__ = lazy_names(__name__, _MODULE_BY_NAME)
