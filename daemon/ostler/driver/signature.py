"""Whether one signature accepts every call that another one allows."""

from __future__ import annotations

import inspect
from inspect import Parameter
from typing import Any


class Signature:
    """The parameters of a method as its caller sees them, without `self`.

    Args:
        parameters: The parameters in order.
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        self.positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.keywords = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.takes_more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._text = str(inspect.Signature([p.replace(annotation=Parameter.empty) for p in parameters]))

    @classmethod
    def of(cls, method: Any) -> Signature:
        """Return the signature of what stands in a class body: a function, staticmethod, classmethod or other callable.

        Raises:
            TypeError, ValueError: It has none that Python can tell.
        """
        function = getattr(method, "__func__", method)
        parameters = list(inspect.signature(function).parameters.values())
        bound = not isinstance(method, staticmethod) and (inspect.isroutine(method) or isinstance(method, classmethod))
        if bound and parameters and parameters[0].kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            parameters = parameters[1:]
        return cls(parameters)

    def __str__(self) -> str:
        return self._text

    def required_count(self) -> int:
        """Return how many arguments must come by position."""
        return sum(p.default is p.empty for p in self.positional)

    def takes(self, count: int) -> bool:
        """Return whether a call with `count` arguments by position, and nothing else, is accepted."""
        enough = self.takes_more or count <= len(self.positional)
        return (
            enough and self.required_count() <= count and all(p.default is not p.empty for p in self.keywords.values())
        )


def misfits(wanted: Signature, offered: Signature) -> list[str]:
    """Return why `offered` does not accept every call that `wanted` allows; empty when it does."""
    points = [
        point for index, parameter in enumerate(wanted.positional) if (point := _position(parameter, index, offered))
    ]
    points += [point for parameter in wanted.keywords.values() if (point := _keyword(parameter, wanted, offered))]
    points += [f"it asks for `{p.name}`, which callers do not give" for p in _further(wanted, offered)]
    if wanted.takes_more and not offered.takes_more:
        points.append("it does not take any number of arguments")
    if wanted.takes_any and not offered.takes_any:
        points.append("it does not take any keyword")
    return points


def _position(parameter: Parameter, index: int, offered: Signature) -> str:
    """Look at one parameter that callers may give by position, and by name unless it is positional-only."""
    if index >= len(offered.positional):
        only_by_name = parameter.name in offered.keywords
        elsewhere = _is_elsewhere(parameter, offered)
        by_name = parameter.kind is Parameter.POSITIONAL_ONLY or (
            offered.takes_any and not only_by_name and not elsewhere
        )
        if offered.takes_more and by_name:
            return ""
        how = " by position" if only_by_name else " in its place" if elsewhere else ""
        return f"it does not take `{parameter.name}`{how}"
    there = offered.positional[index]
    if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
        if there.name != parameter.name:
            return f"`{there.name}` stands where `{parameter.name}` should"
        if there.kind is Parameter.POSITIONAL_ONLY:
            return f"it does not take `{parameter.name}` by name"
    return _default(parameter, there)


def _keyword(parameter: Parameter, wanted: Signature, offered: Signature) -> str:
    """Look at one parameter that callers give by name only."""
    # Where callers may give any number by position, one of those would land in a parameter behind the known ones.
    behind = [] if wanted.takes_more else offered.positional[len(wanted.positional) :]
    named = {p.name: p for p in behind if p.kind is p.POSITIONAL_OR_KEYWORD}
    there = offered.keywords.get(parameter.name) or named.get(parameter.name)
    if there is None:
        taken = _is_elsewhere(parameter, offered)
        return "" if offered.takes_any and not taken else f"it does not take `{parameter.name}` by name alone"
    return _default(parameter, there)


def _is_elsewhere(parameter: Parameter, offered: Signature) -> bool:
    """Return whether a keyword of this name would meet a parameter that has got its value by position."""
    return any(p.name == parameter.name and p.kind is p.POSITIONAL_OR_KEYWORD for p in offered.positional)


def _default(parameter: Parameter, there: Parameter) -> str:
    if parameter.default is not Parameter.empty and there.default is Parameter.empty:
        return f"`{there.name}` needs a default"
    return ""


def _further(wanted: Signature, offered: Signature) -> list[Parameter]:
    """Return the parameters that a caller would have to give and does not know of."""
    more = [*offered.positional[len(wanted.positional) :], *offered.keywords.values()]
    known = set(wanted.keywords)
    # One of the positional names that stands among the keywords has been reported by `_position`.
    known |= {p.name for p in wanted.positional if p.kind is p.POSITIONAL_OR_KEYWORD} & set(offered.keywords)
    # A positional-only one does not get the keyword of its name.
    return [p for p in more if p.default is p.empty and (p.kind is p.POSITIONAL_ONLY or p.name not in known)]
