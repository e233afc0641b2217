"""The plugin host."""

from __future__ import annotations


class PluginHost:
    """Discovers, loads and asks plugins, one at a time."""
