"""Installs plugins into Ostler's own environment: sets of packages that are built, checked and switched to as a whole.

`requirements` reads what is asked for, `pip` runs pip, `plugin_set` is the record of a set, `verification` imports and
checks the plugins of a set in a process of its own, `installation` does one change from the lock to the new link. What
a daemon or a command does with the result is in `ostler.plugins.plugin_directory`.
"""
