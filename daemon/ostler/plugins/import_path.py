"""Resolves the name in a configuration to a manager, driver or other part, and to the way it is created."""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec

from ostler import fork
from ostler.errors import PluginError, error_line, join_words
from ostler.spelling import nearest

_log = logging.getLogger(__name__)
_MAX_LISTED_NAMES = 12
"""The most names of a module that are listed when one is not found."""


class ResolvedObject(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved reference.

    Args:
        reference: The text in the configuration.
        kind: `class`, `object`, `factory` or `module`.
        value: The class, object, factory or module itself.
        cls: The class of its product or, of a factory without a return annotation, the requested base. Options,
            contract and exposed methods are read from it.
        base: The requested base class.
    """

    reference: str
    kind: str
    value: Any
    cls: Any
    base: type

    def build(self, environment: Any) -> Any:
        """Return the instance, with its environment. On any thread; runs code of the plugin.

        A class is instantiated. An existing object is used each time: its class is not instantiated again; its
        `bind(environment)` is called if it has one, otherwise the base class's own `__init__`, which stores the
        environment. A factory is called with the environment if it takes an argument; if it returns a class, that is
        instantiated. Of a module the function `build` is used, or its only class.

        Raises:
            PluginError: A factory returned something else than requested.
            Exception: Any exception of the plugin's code.
        """
        if self.kind == "object":
            return _bind_environment(self.value, self.base, environment)
        if self.kind == "class":
            return self.value(environment)
        factory = self.value.build if self.kind == "module" else self.value
        product = factory(environment) if _accepts_environment(factory) else factory()
        if isinstance(product, type) and issubclass(product, self.base):
            make: Callable[[Any], Any] = product
            return make(environment)
        if not isinstance(product, self.base):
            raise PluginError(
                f"the factory {self.reference} returned {_format_names(product)}, not {_with_article(self.base)}",
                hint=f"it must return a class that derives from {self.base.__name__}, or an instance of one",
                reference=self.reference,
            )
        return product if _accepts_environment(factory) else _bind_environment(product, self.base, environment)

    def wrap_remote(self, remote: Any) -> None:
        """Change what stands for a driver that runs in a process of its own, and is not built here; a test does."""


def resolve_object(
    reference: Any,
    base: type,
    *,
    registered: Mapping[str, Any] | None = None,
    forbidden: Mapping[str, str] | None = None,
) -> ResolvedObject:
    """Return what a reference leads to: a registered name, or an import path to a class, module, object or factory.

    - `lamp`: what a plugin registered under that name.
    - `package.module:Name`: a class that derives from `base`; an instance of such a class (a singleton); or a callable
      that returns either, with the environment as its one argument or with none. What it returns is known before it is
      called from its annotation `-> LampManager`; without one its options are those of `base`. A factory without
      arguments is called here, at once.
    - `package.module`: a module with a function `build`, which is such a factory, or with one class of its own that
      derives from `base`.

    Runs imports and so the code of plugins; whatever that raises comes as PluginError.

    Args:
        reference: The name or path, or a class, object, factory or module itself.
        base: What it must be: `Manager`, `Driver` or the class of an extension.
        registered: What plugins registered, by name; the values are again references.
        forbidden: Top packages that may not be imported, each with the plugin that is blocked.

    Raises:
        PluginError: It leads nowhere, or to something else; says which step failed, and what may have been meant.
    """
    shown, value = str(reference), reference
    if isinstance(value, str) and registered is not None and value in registered:
        value = registered[value]
    if isinstance(value, str):
        value = _import_object(value, base, registered or {}, forbidden or {})
    return _classify(shown if isinstance(reference, str) else _import_path_of(reference), value, base)


def _import_object(path: str, base: type, registered: Mapping[str, Any], forbidden: Mapping[str, str]) -> Any:
    module_name, _, attributes = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise _unknown_error(path, base, registered, f"{path!r} is neither a registered name nor an import path")
    if plugin := forbidden.get(module_name.partition(".")[0]):
        raise PluginError(
            f"{path} belongs to the plugin {plugin}, which is blocked",
            hint="remove it from `blocked` in [plugins]",
            reference=path,
        )
    found: Any = _import_module(module_name, path, base, registered)
    for attribute in filter(None, attributes.split(".")):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise _missing_attribute_error(found, attribute, path) from None
        except BaseException as error:
            raise PluginError(f"{path}: cannot get {attribute}: {error_line(error)}", reference=path) from error
    return found


def _import_module(name: str, path: str, base: type, registered: Mapping[str, Any]) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _unknown_error(path, base, registered, f"module {error.name} not found") from None
        raise PluginError(
            f"{path} cannot be imported: it needs the module {error.name}, which is not installed",
            hint=f"install {error.name} into the environment of the daemon",
            reference=path,
        ) from error
    except BaseException as error:
        fork.exit_if_child(error)
        # The start that is refused for this says it in one line; where it comes from would be lost with it.
        _log.error("%s cannot be imported", path, exc_info=error)
        raise PluginError(f"{path} cannot be imported: {error_line(error)}", reference=path) from error


def _unknown_error(path: str, base: type, registered: Mapping[str, Any], what: str) -> PluginError:
    kind = base.__name__.lower()
    if ":" not in path and "." not in path:
        what = f"no plugin provides a {kind} named {path!r}, and no module has that name"
    near = _nearest_hint(path, registered)
    known = f"; available: {', '.join(sorted(registered))}" if registered and not near else ""
    return PluginError(
        f"{what}{near}{known}",
        hint="see `ostler plugin list`, or give its import path `package.module:Name`",
        reference=path,
    )


def _missing_attribute_error(found: Any, attribute: str, path: str) -> PluginError:
    where = f"module {found.__name__}" if isinstance(found, ModuleType) else getattr(found, "__qualname__", repr(found))
    names = [name for name in dir(found) if not name.startswith("_")]
    near = _nearest_hint(attribute, names)
    own = [name for name in names if getattr(getattr(found, name, None), "__module__", None) == path.partition(":")[0]]
    hint = "" if near else f"it has {join_words(own[:_MAX_LISTED_NAMES])}" if own else "it has no public names"
    return PluginError(f"{path}: {where} has no {attribute}{near}", hint=hint, reference=path)


def _classify(reference: str, value: Any, base: type) -> ResolvedObject:
    if isinstance(value, ModuleType):
        return _from_module(reference, value, base)
    if isinstance(value, type):
        if not issubclass(value, base):
            raise PluginError(
                f"{reference} is the class {value.__name__}, which does not derive from {base.__name__}",
                reference=reference,
            )
        return ResolvedObject(reference=reference, kind="class", value=value, cls=value, base=base)
    if isinstance(value, base):
        return ResolvedObject(reference=reference, kind="object", value=value, cls=type(value), base=base)
    if callable(value):
        return _from_factory(reference, value, base)
    raise PluginError(
        f"{reference} is {_format_names(value)}, not {_with_article(base)}",
        hint=f"use a class that derives from {base.__name__}, an instance of one, a function that returns one of "
        "these, or a module that contains one",
        reference=reference,
    )


def _from_factory(reference: str, factory: Callable[..., Any], base: type) -> ResolvedObject:
    if _accepts_environment(factory):
        cls = _return_class(factory, base)
        return ResolvedObject(reference=reference, kind="factory", value=factory, cls=cls, base=base)
    try:
        product = factory()
    except BaseException as error:
        fork.exit_if_child(error)
        raise PluginError(f"the factory {reference} failed: {error_line(error)}", reference=reference) from error
    if inspect.iscoroutine(product):
        product.close()
    if not isinstance(product, base) and not (isinstance(product, type) and issubclass(product, base)):
        raise PluginError(
            f"the factory {reference} returned {_format_names(product)}, not {_with_article(base)}",
            hint=f"it must return a class that derives from {base.__name__}, or an instance of one",
            reference=reference,
        )
    return _classify(reference, product, base)


def _from_module(reference: str, module: ModuleType, base: type) -> ResolvedObject:
    own = [
        value
        for name, value in sorted(vars(module).items())
        if isinstance(value, type)
        and issubclass(value, base)
        and value is not base
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
        and not name.startswith("_")
    ]
    build = getattr(module, "build", None)
    if callable(build):
        cls = _return_class(build, base)
        cls = own[0] if cls is base and len(own) == 1 else cls
        return ResolvedObject(reference=reference, kind="module", value=module, cls=cls, base=base)
    if len(own) == 1:
        return ResolvedObject(reference=reference, kind="class", value=own[0], cls=own[0], base=base)
    names = ", ".join(cls.__name__ for cls in own)
    what = (
        f"several classes that derive from {base.__name__}: {names}"
        if own
        else f"no class derived from {base.__name__}"
    )
    raise PluginError(
        f"the module {module.__name__} has {what}, and no function `build`",
        hint=f"name the class: {module.__name__}:{own[0].__name__ if own else 'Name'}",
        reference=reference,
    )


def _return_class(factory: Callable[..., Any], base: type) -> type:
    """Return the class that a factory says it returns, `base` when it does not say."""
    try:
        said = typing.get_type_hints(factory).get("return")
    except Exception:  # noqa: BLE001 - names that only a type checker sees; the product is checked when it is built
        return base
    if typing.get_origin(said) is type:
        (said,) = typing.get_args(said)
    return said if isinstance(said, type) and issubclass(said, base) else base


def _accepts_environment(factory: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def _bind_environment(value: Any, base: type, environment: Any) -> Any:
    if callable(bind := getattr(value, "bind", None)):
        bind(environment)
    elif base.__init__ is not object.__init__:  # type: ignore[misc]  # the base's own, on purpose
        keep: Callable[[Any, Any], None] = base.__init__  # type: ignore[misc]
        keep(value, environment)
    return value


def _nearest_hint(name: str, known: Any) -> str:
    near = nearest(name, known)
    return f", did you mean {near}?" if near else ""


def _import_path_of(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}:{name}" if name else _format_names(value)


def _format_names(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{_article(type(value).__name__)}"


def _with_article(base: type) -> str:
    return f"{_article(base.__name__)} or a subclass of it"


def _article(word: str) -> str:
    return f"{'an' if word[:1].lower() in 'aeio' else 'a'} {word}"
