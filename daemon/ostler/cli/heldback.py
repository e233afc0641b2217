"""Modules that libraries import and a daemon may never use: held back until somebody touches them.

asyncio imports `ssl` and peewee `hashlib`; the two bring OpenSSL, a tenth of the daemon's memory. A module that is held
back is in its place as any other. The first attribute asked of it, by whomever and on whichever thread, loads it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader

RARELY_USED = {
    "ssl": "_ssl",
    "asyncio.sslproto": "_ssl",
    "hashlib": "_hashlib",
    "secrets": "_hashlib",
    "importlib.metadata._adapters": "",
    "zipfile": "",
    "csv": "",
    "tempfile": "",
    "calendar": "",
    "locale": "",
}
"""What is held back, and without which other module it is not: asyncio has to find out at once that there is no TLS."""


def hold_back(rarely_used: dict[str, str] | None = None) -> None:
    """Hold modules back that are not imported yet, for the rest of the process. Call it before other threads start.

    Args:
        rarely_used: Their names, and what has to be there for each; by default `RARELY_USED`.
    """
    sys.meta_path.insert(0, _Finder(RARELY_USED if rarely_used is None else rarely_used))


class _Finder:
    def __init__(self, rarely_used: dict[str, str]) -> None:
        self._needs = rarely_used

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is that is to be held back; None for all others."""
        needed = self._needs.get(fullname)
        if needed is None or (needed and PathFinder.find_spec(needed) is None):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            # The module's spec keeps it: the loader is put back as soon as the module is touched.
            spec.loader_state = _Later(spec.loader)
            spec.loader = spec.loader_state
        return spec


class _Later:
    """Stands where a module's loader stands, and has it work when the module is touched."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.RLock()
        self._loading = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Have the module made as the real loader would."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute nothing yet."""
        module.__class__ = _Untouched

    def load(self, module: ModuleType) -> None:
        """Execute the module, once; other threads wait. What keeps it from being executed is raised, each time."""
        with self._lock:
            # The module itself, while it is executed, goes on with what it has by then.
            untouched = type(module) is _Untouched
            if not untouched or self._loading:
                return
            self._loading = True
            try:
                self._loader.exec_module(module)
                _spec(module).loader = module.__loader__ = self._loader
                # Last of all: to other threads a plain module is complete.
                module.__class__ = ModuleType
            finally:
                self._loading = False


class _Untouched(ModuleType):
    def __getattr__(self, name: str) -> Any:
        # Only for what the module does not have: the import system's own questions load nothing.
        _load(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _OWN:
            _load(self)
        ModuleType.__setattr__(self, name, value)  # its class may be another by now

    def __delattr__(self, name: str) -> None:
        _load(self)
        ModuleType.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        _load(self)
        return dir(self)


_OWN = frozenset({"__class__", "__loader__"})


def _spec(module: ModuleType) -> ModuleSpec:
    assert module.__spec__ is not None  # noqa: S101 - the finder made it
    return module.__spec__


def _load(module: ModuleType) -> None:
    later: _Later = _spec(module).loader_state
    later.load(module)
