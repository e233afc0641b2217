"""`ostler plugin enable`, `disable` and `reset`: which plugins the next start or reload loads, without a daemon."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ostler.cli import invocation, kit
from ostler.cli.results import PluginHold
from ostler.errors import NotFound, join_words

_PluginName = Annotated[
    str, typer.Argument(metavar="PLUGIN", help="Its name in `ostler plugin list`", show_default=False)
]
_NEXT = "`ostler reload` or a restart of the daemon applies that."


@kit.shows(PluginHold)
def disable(
    name: _PluginName,
    reason: Annotated[str, typer.Option(help="Why, shown in `ostler status`")] = "",
) -> None:
    """Have a plugin not loaded by the next start or reload.

    What the configuration says of it is left out, and the rest runs; `ostler status` says so. Needs no daemon.
    """
    from ostler.plugins.plugin_records import disable as disable_plugin  # only for this command

    _raise_if_not_installed(name)
    why = f"disabled by `ostler plugin disable`{f': {reason}' if reason else ''}"
    disable_plugin(invocation.current_invocation().paths().state_dir, name, why, time.time())
    _report(name, f"plugin {name} is not loaded any more. {_NEXT}", state="disabled")


@kit.shows(PluginHold)
def enable(name: _PluginName) -> None:
    """Have a disabled or quarantined plugin loaded again.

    By the next start or reload. Needs no daemon. One that is disabled or blocked in [plugins] stays so.
    """
    _let_in(name)


@kit.shows(PluginHold)
def reset(name: _PluginName) -> None:
    """Forget the crashes of a plugin, and end its quarantine.

    The next start loads it. Needs no daemon.
    """
    _let_in(name)


def _let_in(name: str) -> None:
    # Only for these commands: they are read with every `ostler plugin`.
    from ostler.plugins.plugin_records import enable as enable_plugin
    from ostler.plugins.plugin_records import read_records

    state_dir = invocation.current_invocation().paths().state_dir
    if name not in read_records(state_dir).holds:
        _raise_if_not_installed(name)
    hold = enable_plugin(state_dir, name)
    was = f" It was held back: {hold.why}." if hold is not None else " It was not held back."
    _report(
        name, f"plugin {name} is loaded by the next start or reload.{was} {_NEXT if hold is not None else ''}".rstrip()
    )


def _report(name: str, text: str, state: str = "enabled") -> None:
    if kit.json_wanted():
        kit.emit(PluginHold(plugin=name, state=state))
    else:
        kit.say(kit.printable(text))


def _raise_if_not_installed(name: str) -> None:
    from ostler.plugins import installed_plugins  # only for these commands

    known = sorted({plugin.name for plugin in installed_plugins()})
    if name not in known:
        raise NotFound(f"plugin {name} not found", hint=f"installed: {join_words(known) or 'none'}", plugin=name)
