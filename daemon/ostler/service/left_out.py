"""Leaves services and drivers out of a configuration whose plugins cannot be used, or are not loaded on purpose.

A plugin that is quarantined, disabled by a command, left out by the safe mode or broken must not take the others down:
what the configuration says of it would be an error otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from ostler.config.core_sections import CORE_SECTIONS
from ostler.config.layers import RawConfiguration
from ostler.config.options import MissingExtension
from ostler.config.toml_positions import KeyPath
from ostler.config.validation import Fault
from ostler.errors import Problem
from ostler.messaging.events.notifications import BUILTIN_SINKS, SINK_KIND
from ostler.plugins import PluginHost
from ostler.spelling import nearest

_SAME_WORD = 0.8
"""How alike two names are at least, of 1, when one is the other misspelt."""


def leave_out(raw: RawConfiguration, plugins: PluginHost) -> list[str]:
    """Remove the services, drivers and tables that need a plugin of `left_out`; return what was removed, a line each.

    Which plugin would declare a registered name is not known, as it is not imported: with a plugin left out, each name
    that no other one declares counts as its own.

    Args:
        raw: What was read; it is changed.
        plugins: The plugins, after their discovery.
    """
    names = plugins.left_out()
    if not names:
        return []
    packages = plugins.left_out_packages()
    why = _why_left_out(plugins)
    managers, drivers = plugins.managers(), plugins.drivers()
    services = raw.table(("services",))
    removed = []
    for topic, table in _tables(services):
        if _is_missing(table.get("manager"), set(managers), packages):
            del services[topic]
            removed.append(f"service {topic} is left out: {why}")
            continue
        registered = {name for of, name in drivers if of == table.get("manager")}
        backends = raw.table(("services", topic, "drivers"))
        for name, driver in _tables(backends):
            if _is_missing(driver.get("driver"), registered, packages):
                del backends[name]
                removed.append(f"driver {name} of service {topic} is left out: {why}")
    removed += _leave_out_dependents(services, removed)
    sinks = {*BUILTIN_SINKS, *(name for kind, name in plugins.extensions() if kind == SINK_KIND)}
    removed += [f"notification sink {name} is left out: {why}" for name in _remove_sinks(raw, sinks)]
    known = {*CORE_SECTIONS, *plugins.config_sections(), "services"}
    for section in [name for name in raw.data if name not in known]:
        del raw.data[section]
        removed.append(f"[{section}] is left out: {why}")
    return removed


def _why_left_out(plugins: PluginHost) -> str:
    if plugins.is_safe:
        return "the safe mode loads only plugins that come with Ostler"
    return "; ".join(f"plugin {name} is {reason}" for name, reason in plugins.left_out().items())


def _remove_sinks(raw: RawConfiguration, known: Container[str]) -> Iterator[str]:
    for chosen in raw.table(("notifications",)).values():
        names = chosen if isinstance(chosen, list) else []
        for name in [each for each in names if isinstance(each, str) and each not in known]:
            names.remove(name)
            yield name


def leave_out_broken_sections(raw: RawConfiguration, plugins: PluginHost, broken: BrokenParts) -> None:
    """Remove the tables that no plugin declares while one has failed, which may be theirs; not what looks misspelt.

    Args:
        raw: What was read; it is changed.
        plugins: The plugins, after their discovery.
        broken: Gets a line for each table; decides which may be left out.
    """
    known = {*CORE_SECTIONS, *plugins.config_sections(), "services"}
    why = _why_failed(plugins)
    for section in [name for name in raw.data if why and name not in known]:
        if nearest(section, CORE_SECTIONS, _SAME_WORD):  # [acess]: a start without it would be another daemon
            continue
        problem = raw.problem_at((section,), f"no plugin declares the table [{section}] ({why})")
        if broken.leave_out(f"[{section}]", why, problem):
            del raw.data[section]


class BrokenParts:
    """What is left out of a configuration because its code cannot be used.

    Args:
        may_leave_out: Whether a part may be left out, by the beginning of its line: `service lamp`, `driver led of
            service lamp`, `[lamp]`. A start leaves out what it has to; a reload only what is left out already, for it
            must not take away what runs.
    """

    def __init__(self, may_leave_out: Callable[[str], bool]) -> None:
        self._may_leave_out = may_leave_out
        self._lines: dict[str, str] = {}
        self._paths: dict[tuple[str, ...], None] = {}
        self.problems: list[Problem] = []
        """The problems that they would be if they were not left out."""
        self.unmet: list[Problem] = []
        """The problems of services that need what is left out, and stay."""

    def leave_out(self, part: str, why: str, problem: Problem, path: tuple[str, ...] = (), *, user: str = "") -> bool:
        """Leave a part out, with the table at `path`, or return False: `problem` is an error then.

        A part that only `user` uses may be left out whenever that may be.
        """
        if not self._may_leave_out(part) and not (user and self._may_leave_out(user)):
            return False
        if part not in self._lines:
            self.problems.append(problem)
        self._lines[part] = f"{part} is left out: {why}"
        if path:
            self._paths[path] = None
        return True

    def remove_from(self, raw: RawConfiguration) -> bool:
        """Remove the tables of what is left out and the services that need them; return whether there were any.

        A service that needs one and is required, or may not be left out, stays; `unmet` says what it lacks.
        """
        if not self._paths:
            return False
        for path in self._paths:
            raw.table(path[:-1]).pop(path[-1], None)
        self._paths.clear()
        self._leave_out_dependents(raw)
        return True

    def _leave_out_dependents(self, raw: RawConfiguration) -> None:
        services = raw.table(("services",))
        while needs := _needs_of(services, left_out_topics(self._lines.values())):
            is_done = True
            for topic, number, needed in needs:
                what = f"it needs {needed}, which is left out"
                problem = raw.problem_at(
                    ("services", topic, "depends_on", number), f"service {topic} cannot run: {what}"
                )
                is_needed = services[topic].get("required") is True
                if not is_needed and self.leave_out(f"service {topic}", what, problem):
                    is_done = services.pop(topic, None) is None and is_done
                elif problem not in self.unmet:
                    self.unmet.append(problem)
            if is_done:
                return

    @property
    def parts(self) -> Container[str]:
        """The beginnings of the lines of what is left out."""
        return self._lines.keys()

    @property
    def lines(self) -> list[str]:
        """What is left out, a line each."""
        return list(self._lines.values())


def _why_failed(plugins: PluginHost) -> str:
    return "; ".join(f"plugin {name} failed: {reason}" for name, reason in plugins.failed().items())


class MissingExtensions:
    """Leaves services out whose options name an extension of a plugin that cannot be used, or is not loaded.

    Without the extension another rule would apply: a scheduler without one of its filters chooses what it must not.

    Args:
        raw: What was read.
        plugins: The plugins, after their discovery.
        broken: Gets the services that need an extension whose code cannot be used.
    """

    def __init__(self, raw: RawConfiguration, plugins: PluginHost, broken: BrokenParts) -> None:
        self._raw = raw
        self._plugins = plugins
        self._broken = broken
        self._unloaded = BrokenParts(lambda _part: True)

    def without(self, faults: Iterable[Fault]) -> Iterator[Fault]:
        """Yield the faults but for those of services that are left out for them."""
        for path, what in faults:
            if not isinstance(what, MissingExtension):
                yield path, what
            elif not self._leave_out(str(path[1]), path, what):
                reasons = _why_failed(self._plugins)
                yield path, f"{what} ({reasons})" if reasons else what

    def _leave_out(self, topic: str, path: KeyPath, what: MissingExtension) -> bool:
        if self._raw.table(("services", topic)).get("required") is True:
            return False
        problem = self._raw.problem_at(path, what)
        if f"{what.kind} {what.name}" in self._broken.parts:
            parts, why = self._broken, f"{what}, as that of its plugin cannot be used"
        elif reason := _why_failed(self._plugins):
            parts, why = self._broken, f"{what} ({reason})"
        elif self._plugins.left_out():
            parts, why = self._unloaded, _why_left_out(self._plugins)
        else:
            return False
        return parts.leave_out(f"service {topic}", why, problem, ("services", topic))

    def remove_from(self, raw: RawConfiguration) -> bool:
        """Remove the services that are left out and those that need them; return whether there were any."""
        return self._broken.remove_from(raw) | self._unloaded.remove_from(raw)

    @property
    def lines(self) -> list[str]:
        """The services that are left out because a plugin is not loaded on purpose, a line each."""
        return self._unloaded.lines

    @property
    def unmet(self) -> list[Problem]:
        """The problems of required services that need what is left out."""
        return self._unloaded.unmet


def part_of(line: str) -> str:
    """Return what a line says is left out."""
    return line.partition(" is left out: ")[0]


def left_out_topics(lines: Iterable[str]) -> dict[str, str]:
    """Return the services among lines of what is left out, with the reason."""
    found = {part_of(line): line.partition(" is left out: ")[2] for line in lines}
    return {part.removeprefix("service "): why for part, why in found.items() if part.startswith("service ")}


def _tables(table: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, value) for name, value in table.items() if isinstance(value, dict)]


def _is_missing(reference: object, registered: Container[str], packages: Container[str]) -> bool:
    """Return whether a manager or driver is one of a plugin that is left out."""
    if not isinstance(reference, str) or reference in registered:
        return False
    module = reference.partition(":")[0]
    return module.partition(".")[0] in packages if ":" in reference or "." in reference else True


def _needs_of(services: Mapping[str, Any], gone: Container[str]) -> list[tuple[str, int, str]]:
    """Return the first need of each service that is among those that are gone: topic, number in its list, needed."""
    found: dict[str, tuple[str, int, str]] = {}
    for topic, table in _tables(services):
        for number, needed in enumerate(table.get("depends_on") or ()):
            if isinstance(needed, str) and needed in gone:
                found.setdefault(topic, (topic, number, needed))
    return list(found.values())


def _leave_out_dependents(services: dict[str, Any], removed: Iterable[str]) -> list[str]:
    """Remove the services that depend on one that was removed, and so on."""
    gone = set(left_out_topics(removed))
    lines: list[str] = []
    while True:
        found = _needs_of(services, gone)
        if not found:
            return lines
        for topic, _, needed in found:
            del services[topic]
            gone.add(topic)
            lines.append(f"service {topic} is left out: it needs {needed}, which is left out")
