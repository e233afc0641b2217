"""Which hooks a plugin has, and what is wrong with them before one is called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pluggy

from ostler.spelling import nearest

_MARK = "ostler_impl"


class Implementation(NamedTuple):
    """One hook as a plugin has it: the name of the hook, of the attribute, and the function."""

    hook: str
    attribute: str
    function: Any


def implementations(host: pluggy.PluginManager, plugin: object) -> list[Implementation]:
    """Return what a plugin marked with `@hookimpl`."""
    found = []
    for attribute in dir(plugin):
        options = host.parse_hookimpl_opts(plugin, attribute)
        if options is not None:
            found.append(
                Implementation(
                    options.get("specname") or attribute, attribute, inspect.getattr_static(plugin, attribute)
                )
            )
    return found


def faults(host: pluggy.PluginManager, plugin: object, specs: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with the hooks of a plugin: misspelt, not marked, async, wrapping."""
    found = implementations(host, plugin)
    for hook, attribute, marked_as in found:
        function = getattr(marked_as, "__func__", marked_as)
        options = getattr(function, _MARK, {})
        if hook not in specs and not options.get("optionalhook"):
            yield f"there is no hook {hook}{_meant(hook, specs)}"
        elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            yield f"the hook {attribute} is `async def`; hooks are `def`, work that waits belongs into a manager"
        elif options.get("wrapper") or options.get("hookwrapper"):
            yield f"the hook {attribute} wraps others; a plugin speaks for itself only"
    marked = {implementation.attribute for implementation in found}
    for name in sorted(set(specs) - marked):
        if callable(inspect.getattr_static(plugin, name, None)):
            yield f"the function {name} is not marked with @hookimpl"


def _meant(hook: str, specs: Mapping[str, Any]) -> str:
    near = nearest(hook, specs)
    return f", did you mean {near}?" if near else f"; there are {', '.join(sorted(specs))}"
