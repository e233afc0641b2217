"""Names of a package that are imported when they are first used: importing the package then costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str], below: str = "") -> Callable[[str], Any]:
    """Return the `__getattr__` of a package. Any thread.

    Args:
        package: The package, `__name__` there.
        homes: Name to the module that has it.
        below: What the modules are below; by default the package.
    """

    def find(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{below or package}.{home}"), name)

    return find
