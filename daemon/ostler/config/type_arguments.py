"""Classes that are named once, as type arguments: `class LampManager(Manager[LampOptions, LampDriver])`."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping


def adopt_type_arguments(cls: type, root: type, attributes: Mapping[str, type]) -> None:
    """Set class attributes of a new class from the type arguments of its bases. For `__init_subclass__`.

    A type variable changes nothing: the attribute is then inherited.

    Args:
        cls: The new class.
        root: The generic base; type arguments of its subclasses count as well.
        attributes: Attribute to the base of the classes that it holds.

    Raises:
        TypeError: An argument is a name in quotes, or the class defines the attribute as another class.
    """
    for argument in _type_arguments(cls, root):
        if isinstance(argument, typing.ForwardRef):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}: {argument.__forward_arg__!r} is in quotes; define that class "
                "before this one, and name it without quotes"
            )
        for name, kind in attributes.items():
            if isinstance(argument, type) and issubclass(argument, kind):
                _adopt(cls, name, argument)


def _type_arguments(cls: type, root: type) -> Iterator[object]:
    for base in vars(cls).get("__orig_bases__", ()):
        origin = typing.get_origin(base)
        if isinstance(origin, type) and issubclass(origin, root):
            for argument in typing.get_args(base):
                yield typing.get_origin(argument) or argument  # it may have type arguments itself


def _adopt(cls: type, name: str, argument: type) -> None:
    own = vars(cls).get(name)
    if own is None:
        setattr(cls, name, argument)
    elif not (isinstance(own, type) and issubclass(own, argument)):
        raise TypeError(
            f"{cls.__module__}.{cls.__qualname__}: the type argument is {argument.__name__}, but `{name}` is "
            f"{getattr(own, '__qualname__', own)}; remove one of them"
        )
