"""Makes the filters and weighers that the configuration names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ostler import ConfigurationError, describe, nearest
from ostler_scheduler.filters import Filter
from ostler_scheduler.weighers import Weigher


def make_filters(names: Iterable[str], known: Mapping[str, Any], where: str) -> dict[str, Filter]:
    """Return the named filters, made, in their order.

    Args:
        names: What the option names.
        known: Every filter that plugins bring, name to class.
        where: The option's path, for errors.

    Raises:
        ConfigurationError: A name is not known (all such at once), or a filter cannot be made.
    """
    wanted = list(dict.fromkeys(names))
    _check_known("filter", wanted, known, where)
    return {name: _made("filter", name, known[name], Filter, where) for name in wanted}


def make_weighers(
    multipliers: Mapping[str, float], known: Mapping[str, Any], where: str
) -> dict[str, tuple[Weigher, float]]:
    """Return the named weighers, made, with their multipliers; those with 0 are left out.

    Args:
        multipliers: What the option says: name to multiplier.
        known: Every weigher that plugins bring, name to class.
        where: The option's path, for errors.

    Raises:
        ConfigurationError: A name is not known (all such at once), or a weigher cannot be made.
    """
    _check_known("weigher", multipliers, known, where)
    endless = [name for name, multiplier in multipliers.items() if not math.isfinite(multiplier)]
    if endless:
        raise ConfigurationError(f"{where}: the multiplier of {', '.join(endless)} must be a finite number")
    return {
        name: (_made("weigher", name, known[name], Weigher, where), multiplier)
        for name, multiplier in multipliers.items()
        if multiplier
    }


def unknown_part(kind: str, name: str, known: Mapping[str, Any]) -> str:
    """Return the sentence for a filter or weigher that no installed plugin brings."""
    near = nearest(name, known)
    advice = f'did you mean "{near}"?' if near else f"known {kind}s: {', '.join(sorted(known)) or 'none'}"
    return f'no plugin brings the {kind} "{name}"; {advice}'


def _check_known(kind: str, names: Iterable[str], known: Mapping[str, Any], where: str) -> None:
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    said = []
    for name in unknown:
        near = nearest(name, known)
        said.append(f'"{name}"' + (f' (did you mean "{near}"?)' if near else ""))
    raise ConfigurationError(
        f"{where}: no plugin brings the {kind} {', '.join(said)}",
        hint=f"known {kind}s: {', '.join(sorted(known)) or 'none'}",
    )


def _made(kind: str, name: str, part: Any, base: type, where: str) -> Any:
    try:
        made = part() if callable(part) else part
    except Exception as error:
        raise ConfigurationError(
            f'{where}: the {kind} "{name}" cannot be made: {describe(error)}',
            hint=f"take it out of {where}, or mend the plugin that brings it",
        ) from error
    if not isinstance(made, base):
        raise ConfigurationError(f'{where}: the {kind} "{name}" is a {type(made).__name__}, not a {base.__name__}')
    return made
