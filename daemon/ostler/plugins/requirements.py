"""What a plugin says that it needs: other plugins and managers, a version of the hooks, Python packages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from ostler.errors import PluginError, join_words
from ostler.spelling import nearest
from ostler.version_numbers import is_compatible

ATTRIBUTE = "ostler_requires"
_KEYS = ("api", "plugins", "managers", "packages")


class Requirements(msgspec.Struct, frozen=True):
    """What a plugin needs.

    Attributes:
        api: The lowest version of the hooks, empty for any.
        plugins: Other plugins, by name, as in `volume>=0.2`.
        managers: Managers by their registered names, whichever plugin provides them.
        packages: Python packages, as in `psycopg>=3.1`.
    """

    api: str = ""
    plugins: tuple[str, ...] = ()
    managers: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


def read_requirements(plugin: object) -> Requirements:
    """Return what a plugin declares in `ostler_requires`; raises PluginError when that is not a valid declaration."""
    declared = getattr(plugin, ATTRIBUTE, None)
    if declared is None:
        return Requirements()
    if not isinstance(declared, Mapping):
        raise PluginError(f"its `{ATTRIBUTE}` is a {type(declared).__name__}, it must be a dictionary", hint=_hint())
    for key in declared:
        if key not in _KEYS:
            near = nearest(str(key), _KEYS)
            meant = f", did you mean {near!r}?" if near else ""
            raise PluginError(f"its `{ATTRIBUTE}` has an unknown key {key!r}{meant}", hint=_hint())
    api = declared.get("api", "")
    if not isinstance(api, str):
        raise PluginError(f"`api` of its `{ATTRIBUTE}` must be a string like '1.0', not {api!r}")
    needs = Requirements(api, *(_names(declared, key) for key in _KEYS[1:]))
    for text in (*needs.plugins, *needs.packages):
        parse_requirement(text)
    return needs


def _hint() -> str:
    return f"its keys are {join_words(_KEYS)}: `{ATTRIBUTE} = {{'packages': ['psycopg>=3.1']}}`"


def _names(declared: Mapping[Any, Any], key: str) -> tuple[str, ...]:
    names = declared.get(key, ())
    if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise PluginError(f"`{key}` of its `{ATTRIBUTE}` must be a list of strings, not {names!r}")
    return tuple(names)


def missing_here(needs: Requirements, api_version: str) -> Iterator[tuple[str, str]]:
    """Yield what is missing in this environment: what, and what to do about it.

    Args:
        needs: What the plugin needs.
        api_version: The version of the hooks.
    """
    if needs.api and not is_compatible(api_version, needs.api):
        yield f"version {needs.api} of the hooks (this Ostler has {api_version})", "install another version of Ostler"
    for text in needs.packages:
        if found := _missing_package(text):
            yield found, f'install it into the environment of Ostler: `pip install "{text}"`'


def _missing_package(text: str) -> str:
    # Only for plugins that name packages: 20 ms.
    from importlib.metadata import PackageNotFoundError, version

    requirement = parse_requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return ""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"the Python package {text}, which is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"the Python package {text} (version {found} is installed)"


def parse_requirement(text: str) -> Any:
    """Return a requirement such as `psycopg>=3.1`, parsed; raises PluginError when it is none."""
    from packaging.requirements import InvalidRequirement, Requirement  # 15 ms, only for plugins that need others

    try:
        return Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise PluginError(f"{text!r} of its `{ATTRIBUTE}` is not a valid requirement: {reason}") from None


class LoadedPlugins(msgspec.Struct, frozen=True):
    """The plugins as their loading has left them.

    Attributes:
        needs: What each loaded plugin needs.
        versions: The version of each loaded plugin.
        managers: The managers that they provide.
        others: The other plugins that are installed, each with why it is not loaded.
    """

    needs: Mapping[str, Requirements]
    versions: Mapping[str, str]
    managers: Collection[str]
    others: Mapping[str, str]


def unmet_plugins(loaded: LoadedPlugins) -> dict[str, tuple[str, str]]:
    """Return the plugins whose needs of others are not met: name to what is missing, and what to do about it.

    Those in a cycle are among them; those that need one of these are found when it is not loaded any more.
    """
    found = {}
    for name, needs in loaded.needs.items():
        if problem := next(_unmet(needs, loaded), None):
            found[name] = problem
        elif cycle := _find_cycle(name, loaded.needs):
            found[name] = f"{' -> '.join(cycle)}, a cycle", "remove one of them from `ostler_requires`"
    return found


def _unmet(needs: Requirements, loaded: LoadedPlugins) -> Iterator[tuple[str, str]]:
    for text in needs.plugins:
        requirement = parse_requirement(text)
        name = requirement.name
        if name in loaded.others:
            yield f"the plugin {text}, which is {loaded.others[name]}", "fix or install that one"
        elif name not in loaded.versions:
            yield f"the plugin {text}, which is not installed", "install it, `ostler plugin list` shows those there are"
        elif loaded.versions[name] and not requirement.specifier.contains(loaded.versions[name], prereleases=True):
            yield f"the plugin {text} (version {loaded.versions[name]} is installed)", "install another version of it"
    for manager in needs.managers:
        if manager not in loaded.managers:
            near = nearest(manager, loaded.managers)
            meant = f", did you mean {near}?" if near else ""
            yield f"the manager {manager}, which no loaded plugin provides{meant}", "install a plugin that provides it"


def _find_cycle(name: str, needs: Mapping[str, Requirements]) -> list[str]:
    """Return the plugins of a cycle through this one, which is named at both ends; empty when there is none."""
    paths = [[name]]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        for text in needs[path[-1]].plugins if path[-1] in needs else ():
            other = parse_requirement(text).name
            if other == name:
                return [*path, name]
            if other not in seen:
                seen.add(other)
                paths.append([*path, other])
    return []
