"""Creates the filters and weighers that the configuration names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ostler import ConfigurationError, error_line, nearest
from ostler_scheduler.filters import Filter
from ostler_scheduler.weighers import Weigher


def make_filters(names: Iterable[str], known: Mapping[str, Any], where: str) -> dict[str, Filter]:
    """Create the named filters, and return them in their order.

    Args:
        names: The names in the option.
        known: All filters of plugins, name to class.
        where: The option's path, for errors.

    Raises:
        ConfigurationError: A name is unknown (all of them at once), or a filter cannot be created.
    """
    wanted = list(dict.fromkeys(names))
    _check_known("filter", wanted, known, where)
    return {name: _instantiate("filter", name, known[name], Filter, where) for name in wanted}


def make_weighers(
    multipliers: Mapping[str, float], known: Mapping[str, Any], where: str
) -> dict[str, tuple[Weigher, float]]:
    """Create the named weighers, and return them with their multipliers; those with 0 are omitted.

    Args:
        multipliers: The value of the option: name to multiplier.
        known: All weighers of plugins, name to class.
        where: The option's path, for errors.

    Raises:
        ConfigurationError: A name is unknown (all of them at once), or a weigher cannot be created.
    """
    _check_known("weigher", multipliers, known, where)
    endless = [name for name, multiplier in multipliers.items() if not math.isfinite(multiplier)]
    if endless:
        raise ConfigurationError(f"{where}: the multiplier of {', '.join(endless)} must be a finite number")
    return {
        name: (_instantiate("weigher", name, known[name], Weigher, where), multiplier)
        for name, multiplier in multipliers.items()
        if multiplier
    }


def _check_known(kind: str, names: Iterable[str], known: Mapping[str, Any], where: str) -> None:
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    said = []
    for name in unknown:
        near = nearest(name, known)
        said.append(f'"{name}"' + (f' (did you mean "{near}"?)' if near else ""))
    raise ConfigurationError(
        f"{where}: no installed plugin provides the {kind} {', '.join(said)}",
        hint=f"available: {', '.join(sorted(known)) or 'none'}",
    )


def _instantiate(kind: str, name: str, part: Any, base: type, where: str) -> Any:
    try:
        made = part() if callable(part) else part
    except Exception as error:
        raise ConfigurationError(
            f'{where}: cannot create the {kind} "{name}": {error_line(error)}',
            hint=f"remove it from {where}, or fix the plugin that provides it",
        ) from error
    if not isinstance(made, base):
        raise ConfigurationError(f'{where}: the {kind} "{name}" is a {type(made).__name__}, not a {base.__name__}')
    return made
