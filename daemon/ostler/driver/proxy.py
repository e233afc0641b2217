"""What a manager holds in its hand: a driver whose methods run in the driver's own lane."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from ostler.driver.runner import DriverRunner

_PLAIN = (bool, int, float, str, bytes, type(None))
_OWN = "_runner"


class DriverProxy:
    """Stands for a driver: its methods can be called as on the driver itself, from any thread but the loop's.

    Attributes pass through when they are plain data that cannot change under the reader (text, numbers, tuples and
    frozen sets of them) or the driver's options. What is private stays private.

    Args:
        runner: Who runs the driver.
        call: What a method call becomes: `call(method, *arguments, **named)`.
    """

    def __init__(self, runner: DriverRunner, call: Callable[..., Any]) -> None:
        self.__dict__[_OWN] = (runner, call)

    def __getattr__(self, name: str) -> Any:
        runner, call = self.__dict__[_OWN]
        if name.startswith("_"):
            raise AttributeError(f"{name} of {runner.names} is private")
        if name == "name":
            return runner.spec.name
        if name == "options":
            return runner.spec.options
        subject = runner.driver if runner.driver is not None else runner.spec.cls
        if subject is None:  # the factory has not made it yet; a call says so better than a missing attribute
            return partial(call, name)
        found = inspect.getattr_static(subject, name, _MISSING)
        if found is _MISSING:
            raise AttributeError(f"{runner.names} ({_kind(subject).__qualname__}) has no {name!r}")
        if isinstance(found, staticmethod | classmethod) or (callable(found) and not isinstance(found, type)):
            return self.__dict__.setdefault(name, partial(call, name))
        if _is_plain(found):
            return found
        raise AttributeError(
            f"{name!r} of {runner.names} is a {type(found).__name__} and stays with the driver: only methods and plain "
            "data pass; make it a method"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name!r} cannot be set from outside of {self.__dict__[_OWN][0].names}")

    def __repr__(self) -> str:
        runner, _ = self.__dict__[_OWN]
        return f"<{runner.names}: {runner.state}>"


_MISSING = object()


def _kind(subject: object) -> type:
    return subject if isinstance(subject, type) else type(subject)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)
