"""Stands for a driver that runs in a process of its own, where the daemon has an instance otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from ostler.driver.driver import DriverSpec
from ostler.driver.process.driver_process import DriverProcess
from ostler.driver.process.values import sendable_features


def make_remote(spec: DriverSpec, process: DriverProcess) -> RemoteDriver:
    """Return what stands for the driver of a process."""
    remote = RemoteDriver(spec.cls or spec.contract, process)
    if spec.wrap_remote is not None:
        spec.wrap_remote(remote)
    return remote


class RemoteDriver:
    """Has the methods of the driver's class; each is a call into the process. On threads, not the loop's.

    Args:
        cls: The driver's class.
        process: Its process.

    All further names begin with an underscore: a driver's methods can have any other.
    """

    def __init__(self, cls: type, process: DriverProcess) -> None:
        self._cls = cls
        self._process = process
        self._is_built = False
        self._features = sendable_features(cls)
        self._attributes: dict[str, Any] = {"features": self._features}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = inspect.getattr_static(self._cls, name)
        function = getattr(function, "__func__", function)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._process.call(name, arguments, named)

        self.__dict__[name] = update_wrapper(call, function)  # with what decorators have left on it
        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "options":
            self._process.set_options(value)
        else:
            super().__setattr__(name, value)

    def initialise(self) -> None:
        """Create the instance if there is none yet, and initialise it."""
        if not self._is_built:
            self._process.build()
            self._is_built = True
        self._process.call("initialise", (), {})
        self._attributes = {**self._process.attributes(), "features": self._features}

    def cleanup(self) -> None:
        """Have the instance release its resources; nothing when there is none any more."""
        if self._is_built and not self._process.is_lost:
            self._process.call("cleanup", (), {})
