"""The manager's view of a driver: its methods run in the driver's own lane."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from ostler.driver.driver_runner import DriverRunner

_PLAIN_TYPES = (bool, int, float, str, bytes, type(None))
_RUNNER_KEY = "_runner"


class DriverProxy:
    """Stands for a driver: its methods can be called as on the driver itself, from any thread but the loop's.

    Attributes pass through when they are plain data that cannot change under the reader (text, numbers, tuples and
    frozen sets of them) or the driver's options. Private attributes are not accessible.

    Args:
        runner: Runs the driver.
        call: Executes a method call: `call(method, *arguments, **named)`.
    """

    def __init__(self, runner: DriverRunner, call: Callable[..., Any]) -> None:
        self.__dict__[_RUNNER_KEY] = (runner, call)

    def __getattr__(self, name: str) -> Any:
        runner, call = self.__dict__[_RUNNER_KEY]
        if name.startswith("_"):
            raise AttributeError(f"{name} of {runner.label} is private")
        if name == "name":
            return runner.spec.name
        if name == "options":
            return runner.spec.options
        subject = runner.subject()
        if name in (remote := runner.remote_attributes()):
            return remote[name]
        if subject is None:  # the factory has not created it yet; a call reports that better than a missing attribute
            return partial(call, name)
        found = inspect.getattr_static(subject, name, _MISSING)
        if found is _MISSING:
            raise AttributeError(f"{runner.label} ({_type_of(subject).__qualname__}) has no {name!r}")
        if isinstance(found, staticmethod | classmethod) or (callable(found) and not isinstance(found, type)):
            return self.__dict__.setdefault(name, partial(call, name))
        if _is_plain(found):
            return found
        raise AttributeError(
            f"{name!r} of {runner.label} is a {type(found).__name__} and not accessible: only methods and plain data "
            "are; make it a method"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name!r} cannot be set from outside {self.__dict__[_RUNNER_KEY][0].label}")

    def __repr__(self) -> str:
        runner, _ = self.__dict__[_RUNNER_KEY]
        return f"<{runner.label}: {runner.state}>"


_MISSING = object()


def _type_of(subject: object) -> type:
    return subject if isinstance(subject, type) else type(subject)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN_TYPES)
