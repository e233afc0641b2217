"""What plugins can declare: every hook there is, in one file. Each docstring is its reference.

Hooks are synchronous, quick and few: they declare what a plugin provides. Everything that a manager or driver does is
a method of `Manager` or `Driver`. A plugin is a module (or object) named by an entry point of the group `ostler`:

    [project.entry-points.ostler]
    lamp = "ostler_lamp.plugin"

It may state the version of these hooks that it requires as `ostler_api = "1.0"`; another major version, or a newer
minor one than this, is refused. What else it needs it may state as `ostler_requires`, a dictionary of which all is
optional; what is missing is named, with how to install it, and the plugin is not loaded, nor are those that need it:

    ostler_requires = {
        "api": "1.0",                    # the lowest version of the hooks
        "plugins": ["volume>=0.1"],      # other plugins, by the names of `ostler plugin list`
        "managers": ["volume"],          # managers, whichever plugin provides them
        "packages": ["psycopg>=3.1"],    # Python packages
    }
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    # The classes are in higher layers; here they are names in annotations only.
    from ostler.config import OptionsModel
    from ostler.driver import Driver
    from ostler.manager import Manager

PROJECT = "ostler"
API_VERSION = "1.0"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ostler_managers() -> Mapping[str, type[Manager] | str]:
    """Return the managers of this plugin: registered name to class, or to an import path `package.module:Name`.

    Called once at start, on the main thread. The name is what `manager = "…"` in `[services.TOPIC]` refers to.

    A manager can check its configuration with the class method `validate(options, others)`. It is called by `ostler
    check`, at the start and at a reload, before anything is started, and yields mistakes as `("option", "sentence")`;
    `others` (a `ValidationContext`) has the other services and drivers.
    """
    raise NotImplementedError


@hookspec
def ostler_drivers() -> Mapping[tuple[str, str], type[Driver] | str]:
    """Return the drivers of this plugin: (registered manager name, driver name) to class or import path.

    Called once at start, on the main thread. The name is what `driver = "…"` in `[services.TOPIC.drivers.NAME]` refers
    to. A plugin may provide drivers for another plugin's manager. A driver may have `validate(options, others)` like a
    manager, and `probe(options)`, which returns why it could not work on this host: `ostler check --probe` calls it in
    a process of its own with a time limit, so that it may access devices and networks; it must change nothing.
    """
    raise NotImplementedError


@hookspec
def ostler_extensions() -> Mapping[tuple[str, str], Any]:
    """Return extensions for another plugin's manager: (kind, name) to a class or import path.

    Called once at start, on the main thread. The kind is one that a manager declares in `extension_kinds`, for instance
    `scheduler.filter`; that manager gets all extensions of the kinds it declares. The daemon itself uses the kind
    `notification_sink`: classes derived from `NotificationSink`, by the names that `[notifications]` uses.
    """
    raise NotImplementedError


@hookspec
def ostler_config_sections() -> Mapping[str, type[OptionsModel]]:
    """Return the configuration sections of the plugin: name of a top-level table to the model of its options.

    Called at start and by `ostler check`, on the main thread. Options of a manager or driver do not need this: they
    are fields of their class's `Options` and belong in the tables of the service and of the driver.
    """
    raise NotImplementedError


@hookspec
def ostler_migrations() -> Mapping[str, ModuleType | str]:
    """Return the plugin's database migrations: a unique namespace to a package of numbered migrations.

    Called once at start, on the main thread, before the store is opened. Tables of the plugin start with `NAMESPACE_`.
    Migrations only go forward; each is a module `mNNNN_name.py` with a function `forward(database)`.
    """
    raise NotImplementedError


@hookspec
def ostler_started(host: str) -> None:
    """Run when every required service is up, just before the daemon notifies systemd that it is ready.

    Called on a thread of its own, which may take a minute for all plugins together. An error is logged with the
    plugin's name and does not affect other plugins.
    """


@hookspec
def ostler_stopping(host: str) -> None:
    """Run when the daemon starts to stop; called for one plugin at a time, so that an error in one affects no other.

    Called on a thread of its own, which may take five seconds for all plugins together; a hanging call is logged and
    abandoned.
    """
