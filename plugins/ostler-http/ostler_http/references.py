"""From the name of an application or filter in the configuration to what creates it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal, cast

import msgspec

from ostler import error_line, nearest
from ostler_http.application import AppEnvironment, Application, AppOptions, Filter, FilterOptions
from ostler_http.asgi import ASGIApp, WSGIApp
from ostler_http.lifespan import Lifespan

_HOW = (
    "use a class that derives from `ostler_http.Application`, a function of `(environment, options)` that returns one "
    "or a callable, or an ASGI or WSGI callable"
)
_KINDS: dict[tuple[str, ...], Literal["factory", "asgi"]] = {
    ("environment", "options"): "factory",
    ("scope", "receive", "send"): "asgi",
}


class ReferenceFault(Exception):
    """Raised when a name leads to no application or filter; the text is a sentence for the configuration.

    Args:
        text: The sentence.
        is_missing: Whether it is a registered name that no plugin provides, which one that is broken might.
    """

    def __init__(self, text: str, *, is_missing: bool = False) -> None:
        super().__init__(text)
        self.is_missing = is_missing


class ResolvedApp(msgspec.Struct, frozen=True):
    """An application that was found.

    Attributes:
        reference: The name or import path in the configuration.
        kind: `class`, `factory`, `asgi` or `wsgi`.
        value: The class, the factory or the callable itself.
        options: The model of its options.
        needs_role: Whether the filter `auth` refuses callers without a role.
    """

    reference: str
    kind: Literal["class", "factory", "asgi", "wsgi"]
    value: Any
    options: type[AppOptions] = AppOptions
    needs_role: bool = True

    def create(self, environment: AppEnvironment, options: AppOptions) -> Application:
        """Return the application for one mount. On the loop of the service; runs its code.

        Raises:
            ReferenceFault: A factory returned something else.
            Exception: What its code raises.
        """
        made = self.value
        if self.kind in ("class", "factory"):
            made = made(environment, options)
            if isinstance(made, type) and issubclass(made, Application):
                made = made(environment, options)
        if isinstance(made, Application):
            return made
        kind = self.kind if self.kind in ("asgi", "wsgi") else _interface_of(made)
        if kind is None:
            raise ReferenceFault(f"{self.reference} returned {type(made).__name__}, which is no application; {_HOW}")
        return _Wrapped(environment, options, made, "wsgi" if kind == "wsgi" else "asgi")


class _Wrapped(Application):
    """A plain callable as an application."""

    def __init__(self, environment: AppEnvironment, options: Any, app: Any, interface: Literal["asgi", "wsgi"]) -> None:
        super().__init__(environment, options)
        self._app = app
        self._lifespan: Lifespan | None = None
        self.interface = interface  # type: ignore[misc]  # of this one object

    def build(self) -> ASGIApp | WSGIApp:
        """See `Application.build`."""
        # Functions that take any scope for a request, as they may here, would be called without one.
        if self.interface == "asgi" and not inspect.isroutine(self._app):
            self._lifespan = Lifespan(self.options.app, self._app)
            return self._lifespan
        return self._app  # type: ignore[no-any-return]

    async def start(self) -> None:
        """See `Application.start`."""
        if self._lifespan is not None:
            await self._lifespan.start()

    async def stop(self, timeout: float) -> None:
        """See `Application.stop`."""
        if self._lifespan is not None:
            await self._lifespan.stop(timeout)


def resolve_app(reference: str, registered: Mapping[str, Any]) -> ResolvedApp:
    """Return the application that a name leads to.

    Args:
        reference: The registered name, or the import path `package.module:name`.
        registered: The extensions of the kind `http.app`.

    Raises:
        ReferenceFault: It leads nowhere, or to something else.
    """
    value = _find(reference, registered, "application")
    if isinstance(value, type) and issubclass(value, Application):
        if inspect.isabstract(value):
            raise ReferenceFault(f"{reference} is abstract: it lacks {', '.join(sorted(value.__abstractmethods__))}")
        return ResolvedApp(reference, "class", value, _options_of(reference, value), value.needs_role)
    if isinstance(value, Application):
        raise ReferenceFault(f"{reference} is an object; name its class, so that each mount has one of its own")
    kind = _interface_of(value)
    if kind is None:
        raise ReferenceFault(f"{reference} is no application; {_HOW}")
    options = _options_of(reference, value) if kind == "factory" else AppOptions
    return ResolvedApp(reference, kind, value, options, bool(getattr(value, "needs_role", True)))


def resolve_filter(reference: str, registered: Mapping[str, Any]) -> type[Filter]:
    """Return the class of the filter that a name leads to.

    Args:
        reference: The registered name, or the import path `package.module:Name`.
        registered: The extensions of the kind `http.filter`.

    Raises:
        ReferenceFault: It leads nowhere, or to something else.
    """
    value = _find(reference, registered, "filter")
    if not isinstance(value, type) or not issubclass(value, Filter) or inspect.isabstract(value):
        raise ReferenceFault(f"{reference} is no class that derives from `ostler_http.Filter` and has `wrap`")
    if not _is_model(getattr(value, "Options", None), FilterOptions):
        raise ReferenceFault(f"the `Options` of {reference} do not derive from `ostler_http.FilterOptions`")
    return value


def _find(reference: str, registered: Mapping[str, Any], what: str) -> Any:
    if reference in registered:
        return registered[reference]
    if ":" not in reference:
        near = nearest(reference, registered)
        advice = f'did you mean "{near}"?' if near else f"available: {', '.join(sorted(registered)) or 'none'}"
        raise ReferenceFault(f'no installed plugin provides the {what} "{reference}"; {advice}', is_missing=True)
    module, _, name = reference.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise ReferenceFault(f"{reference} cannot be imported: {error_line(error)}") from error
    return found


def _options_of(reference: str, value: Any) -> type[AppOptions]:
    options = getattr(value, "Options", AppOptions)
    if not _is_model(options, AppOptions):
        raise ReferenceFault(f"the `Options` of {reference} do not derive from `ostler_http.AppOptions`")
    return cast("type[AppOptions]", options)


def _is_model(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _interface_of(value: Any) -> Literal["factory", "asgi", "wsgi"] | None:
    """Return what kind of callable it is, by its parameters; None for what is none."""
    if not callable(value) or isinstance(value, type):
        return None
    names = _parameters(value)
    if names is None:
        return None
    if known := _KINDS.get(names):
        return known
    return "wsgi" if len(names) == 2 else "asgi" if len(names) == 3 else None


def _parameters(value: Callable[..., Any]) -> tuple[str, ...] | None:
    try:
        found = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(each.name for each in found if each.kind in positional and each.default is each.empty)
