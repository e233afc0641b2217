"""Finds and checks the hooks of a plugin before one is called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pluggy

from ostler.spelling import nearest

_HOOKIMPL_ATTRIBUTE = "ostler_impl"


class HookImplementation(NamedTuple):
    """One hook implementation: the names of the hook and of the attribute, and the function."""

    hook: str
    attribute: str
    function: Any


def implementations(host: pluggy.PluginManager, plugin: object) -> list[HookImplementation]:
    """Return the functions of a plugin marked with `@hookimpl`."""
    found = []
    for attribute in dir(plugin):
        options = host.parse_hookimpl_opts(plugin, attribute)
        if options is not None:
            found.append(
                HookImplementation(
                    options.get("specname") or attribute, attribute, inspect.getattr_static(plugin, attribute)
                )
            )
    return found


def hook_faults(host: pluggy.PluginManager, plugin: object, specs: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a plugin's hooks: misspelt, not marked, async, wrappers."""
    found = implementations(host, plugin)
    for hook, attribute, marked_as in found:
        function = getattr(marked_as, "__func__", marked_as)
        options = getattr(function, _HOOKIMPL_ATTRIBUTE, {})
        if hook not in specs and not options.get("optionalhook"):
            yield f"unknown hook {hook}{_suggestion(hook, specs)}"
        elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            yield f"the hook {attribute} is `async def`; hooks must be `def`, move work that waits to a manager"
        elif options.get("wrapper") or options.get("hookwrapper"):
            yield f"the hook {attribute} is a wrapper; hook wrappers are not supported"
    marked = {implementation.attribute for implementation in found}
    for name in sorted(set(specs) - marked):
        if callable(inspect.getattr_static(plugin, name, None)):
            yield f"the function {name} is not marked with @hookimpl"


def _suggestion(hook: str, specs: Mapping[str, Any]) -> str:
    near = nearest(hook, specs)
    return f", did you mean {near}?" if near else f"; available: {', '.join(sorted(specs))}"
