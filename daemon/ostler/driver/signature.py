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
        self.has_var_positional = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.has_var_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._text = str(inspect.Signature([p.replace(annotation=Parameter.empty) for p in parameters]))

    @classmethod
    def from_method(cls, method: Any) -> Signature:
        """Return the signature of what is in a class body: a function, staticmethod, classmethod or other callable.

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

    def accepts(self, count: int) -> bool:
        """Return whether a call with `count` arguments by position, and nothing else, is accepted."""
        enough = self.has_var_positional or count <= len(self.positional)
        return (
            enough and self.required_count() <= count and all(p.default is not p.empty for p in self.keywords.values())
        )


def incompatibilities(wanted: Signature, offered: Signature) -> list[str]:
    """Return why `offered` does not accept every call that `wanted` allows; empty when it does."""
    points = [
        point
        for index, parameter in enumerate(wanted.positional)
        if (point := _check_positional(parameter, index, offered))
    ]
    points += [point for parameter in wanted.keywords.values() if (point := _check_keyword(parameter, wanted, offered))]
    points += [f"it requires `{p.name}`, which callers do not pass" for p in _extra_required(wanted, offered)]
    if wanted.has_var_positional and not offered.has_var_positional:
        points.append("it does not accept `*args`")
    if wanted.has_var_keyword and not offered.has_var_keyword:
        points.append("it does not accept `**kwargs`")
    return points


def _check_positional(parameter: Parameter, index: int, offered: Signature) -> str:
    """Look at one parameter that callers may give by position, and by name unless it is positional-only."""
    if index >= len(offered.positional):
        only_by_name = parameter.name in offered.keywords
        elsewhere = _is_bound_positionally(parameter, offered)
        by_name = parameter.kind is Parameter.POSITIONAL_ONLY or (
            offered.has_var_keyword and not only_by_name and not elsewhere
        )
        if offered.has_var_positional and by_name:
            return ""
        how = " as a positional argument" if only_by_name else " at its position" if elsewhere else ""
        return f"it does not accept `{parameter.name}`{how}"
    there = offered.positional[index]
    if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
        if there.name != parameter.name:
            return f"`{there.name}` is at the position of `{parameter.name}`"
        if there.kind is Parameter.POSITIONAL_ONLY:
            return f"it does not accept `{parameter.name}` as a keyword argument"
    return _check_default(parameter, there)


def _check_keyword(parameter: Parameter, wanted: Signature, offered: Signature) -> str:
    """Look at one parameter that callers give by name only."""
    # Where callers may give any number by position, one of those would land in a parameter behind the known ones.
    behind = [] if wanted.has_var_positional else offered.positional[len(wanted.positional) :]
    named = {p.name: p for p in behind if p.kind is p.POSITIONAL_OR_KEYWORD}
    there = offered.keywords.get(parameter.name) or named.get(parameter.name)
    if there is None:
        taken = _is_bound_positionally(parameter, offered)
        return (
            ""
            if offered.has_var_keyword and not taken
            else f"it does not accept `{parameter.name}` as a keyword-only argument"
        )
    return _check_default(parameter, there)


def _is_bound_positionally(parameter: Parameter, offered: Signature) -> bool:
    """Return whether a keyword of this name would meet a parameter that has got its value by position."""
    return any(p.name == parameter.name and p.kind is p.POSITIONAL_OR_KEYWORD for p in offered.positional)


def _check_default(parameter: Parameter, there: Parameter) -> str:
    if parameter.default is not Parameter.empty and there.default is Parameter.empty:
        return f"`{there.name}` needs a default"
    return ""


def _extra_required(wanted: Signature, offered: Signature) -> list[Parameter]:
    """Return the parameters that a caller would have to give and does not know of."""
    more = [*offered.positional[len(wanted.positional) :], *offered.keywords.values()]
    known = set(wanted.keywords)
    # One of the positional names that stands among the keywords has been reported by `_check_positional`.
    known |= {p.name for p in wanted.positional if p.kind is p.POSITIONAL_OR_KEYWORD} & set(offered.keywords)
    # A positional-only one does not get the keyword of its name.
    return [p for p in more if p.default is p.empty and (p.kind is p.POSITIONAL_ONLY or p.name not in known)]
