"""Lazy imports: modules that libraries import and a daemon may never use are loaded on first use.

asyncio imports `ssl` and peewee `hashlib`; both load OpenSSL, a tenth of the daemon's memory. A lazy module is in
`sys.modules` as any other. The first access to one of its attributes, on any thread, loads it.
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

LAZY_MODULES = {
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
"""The lazy modules, each with the module that must exist for it: asyncio has to see at once that there is no TLS."""


def install_lazy_imports(lazy_modules: dict[str, str] | None = None) -> None:
    """Make modules lazy that are not imported yet, for the rest of the process. Call it before other threads start.

    Args:
        lazy_modules: Their names, and the module that must exist for each; by default `LAZY_MODULES`.
    """
    sys.meta_path.insert(0, _LazyFinder(LAZY_MODULES if lazy_modules is None else lazy_modules))


class _LazyFinder:
    def __init__(self, lazy_modules: dict[str, str]) -> None:
        self._lazy_modules = lazy_modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that is to be lazy; None for all others."""
        needed = self._lazy_modules.get(fullname)
        if needed is None or (needed and PathFinder.find_spec(needed) is None):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            # The spec holds the lazy loader; the real one is restored as soon as the module is used.
            spec.loader_state = _LazyLoader(spec.loader)
            spec.loader = spec.loader_state
        return spec


class _LazyLoader:
    """Wraps the loader of a module, and runs it when the module is first used."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.RLock()
        self._loading = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the real loader would."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing yet."""
        module.__class__ = _LazyModule

    def load(self, module: ModuleType) -> None:
        """Execute the module, once; other threads wait. If that fails, the error is raised at each access."""
        with self._lock:
            # Code of the module itself, while it is executed, sees the attributes that exist by then.
            untouched = type(module) is _LazyModule
            if not untouched or self._loading:
                return
            self._loading = True
            try:
                self._loader.exec_module(module)
                _spec(module).loader = module.__loader__ = self._loader
                # Last of all: other threads take a plain module for complete.
                module.__class__ = ModuleType
            finally:
                self._loading = False


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        # Called only for attributes that are missing: the import system's own accesses load nothing.
        _load_module(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _NON_LOADING_ATTRIBUTES:
            _load_module(self)
        ModuleType.__setattr__(self, name, value)  # its class may have changed by now

    def __delattr__(self, name: str) -> None:
        _load_module(self)
        ModuleType.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        _load_module(self)
        return dir(self)


_NON_LOADING_ATTRIBUTES = frozenset({"__class__", "__loader__"})


def _spec(module: ModuleType) -> ModuleSpec:
    assert module.__spec__ is not None  # noqa: S101 - the finder created it
    return module.__spec__


def _load_module(module: ModuleType) -> None:
    later: _LazyLoader = _spec(module).loader_state
    later.load(module)
