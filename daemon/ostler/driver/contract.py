"""Holds a class against the base class that it has to fulfil: drivers, and managers and extensions just so."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ostler.driver.base import BUDGET_MARK, FEATURE_MARK, Driver, DriverOptions
from ostler.driver.signature import Signature, misfits
from ostler.errors import ContractError
from ostler.spelling import nearest

_MISSING = object()


def require_contract(cls: Any, base: type, *, what: str, either: bool = False) -> None:
    """Raise with every point in which `cls` does not fulfil `base`; see `check_contract`.

    Args:
        cls: The class to look at.
        base: What it has to fulfil.
        what: Who it is, for the message: `driver local of volume`.
        either: See `check_contract`.

    Raises:
        ContractError: At least one point is missed; `facts["points"]` has all of them.
    """
    points = check_contract(cls, base, either=either)
    if not points:
        return
    name = getattr(cls, "__qualname__", repr(cls))
    raise ContractError(
        f"{what}: {getattr(cls, '__module__', '?')}:{name} does not fulfil {base.__name__}: {'; '.join(points)}",
        hint="correct the class, or name another one in the configuration",
        what=what,
        points=points,
    )


def check_contract(cls: Any, base: type, *, either: bool = False, constructed: bool = True) -> list[str]:
    """Return every point in which `cls` does not fulfil `base`, each as a sentence; empty when it does.

    Looked at are: whether it derives from `base`; abstract methods that are missing; whether each method of `base` that
    it overrides accepts every call that `base` allows (names, kinds, order, defaults); `def` against `async def`; class
    attributes, as `Options` deriving from the base's `Options`; for drivers also the features, the options named by
    `@time_budget`, and a class that overrides nothing. Nothing of the class is called, no instance is made.

    Args:
        cls: The class to look at; anything that is no class is a point of its own.
        base: What it has to fulfil.
        either: Whether a method may be `def` or `async def` whatever the base has, as a manager's hooks may.
        constructed: Whether the class is called to make an instance; that of a singleton or of a factory's product
            may have any constructor.
    """
    if not isinstance(cls, type):
        return [f"it is {_article(type(cls).__name__)}, not a class"]
    points = list(_ancestry(cls, base))
    for name in _public_names(base):
        points += _check_member(cls, base, name, either)
    points += _abstract(cls, base)
    if constructed:
        points += _constructor(cls, base)
    if issubclass(base, Driver):
        points += _features(cls, base)
        points += _budgets(cls)
    return points


def _ancestry(cls: type, base: type) -> Iterator[str]:
    if not issubclass(cls, base):
        yield f"it does not derive from {base.__name__}"
    elif cls is base and base is not Driver:
        yield "it is the contract itself, not an implementation"
    elif issubclass(base, Driver) and not _own_names(cls, base) and not getattr(base, "__abstractmethods__", ()):
        yield f"it is an empty class: it overrides nothing of {base.__name__}"


def _abstract(cls: type, base: type) -> Iterator[str]:
    """Say what is still abstract that the class itself, or one between it and `base`, asks for."""
    own: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset()) - getattr(
        base, "__abstractmethods__", frozenset()
    )
    for name in sorted(own):
        yield f"`{name}` is abstract: it is a contract, not an implementation"


def _own_names(cls: type, base: type) -> set[str]:
    """Return the public names that classes below `base` have brought."""
    own = [kind for kind in cls.__mro__ if kind not in base.__mro__]
    return {name for kind in own for name in vars(kind) if not name.startswith("_")}


def _public_names(base: type) -> list[str]:
    names = {name for kind in base.__mro__ if kind is not object for name in vars(kind)}
    return sorted(name for name in names if not name.startswith("_"))


def _check_member(cls: type, base: type, name: str, either: bool) -> list[str]:
    wanted = inspect.getattr_static(base, name)
    found = inspect.getattr_static(cls, name, _MISSING)
    if getattr(wanted, "__isabstractmethod__", False) and (
        found is _MISSING or getattr(found, "__isabstractmethod__", False)
    ):
        return [f"`{name}` is missing{_meant(cls, base, name)}"]
    if found is wanted or found is _MISSING:
        return []
    if not _is_method(wanted):
        return _check_attribute(name, wanted, found)
    if not _is_method(found):
        return [f"`{name}` is {_article(type(found).__name__)}, not a method"]
    return _check_method(name, wanted, found, either)


def _check_method(name: str, wanted: Any, found: Any, either: bool) -> list[str]:
    points = []
    if not either and (is_async := _is_async(found)) is not _is_async(wanted):
        asked, got = ("def", "async def") if is_async else ("async def", "def")
        points.append(f"`{name}` is `{got}`, it has to be `{asked}`")
    try:
        asked_for, offered = Signature.of(wanted), Signature.of(found)
    except (TypeError, ValueError):  # written in C, without a signature: only a call can tell
        return points
    if wrong := misfits(asked_for, offered):
        points.append(f"`{name}{offered}` does not fit `{name}{asked_for}`: {', '.join(wrong)}")
    return points


def _check_attribute(name: str, wanted: Any, found: Any) -> list[str]:
    if isinstance(wanted, type):
        if not isinstance(found, type) or not issubclass(found, wanted):
            return [f"`{name}` does not derive from {wanted.__name__}"]
        return []
    if wanted is None or isinstance(wanted, property) or isinstance(found, property):
        return []
    if not isinstance(found, type(wanted)):
        got = _article(type(found).__name__)
        return [f"`{name}` is {got}, it has to be {_article(type(wanted).__name__)}"]
    return []


def _constructor(cls: type, base: type) -> list[str]:
    """Look whether the class can be built as its base is: with as many arguments, by position."""
    wanted, found = inspect.getattr_static(base, "__init__"), inspect.getattr_static(cls, "__init__")
    if found is wanted or not _is_method(found) or not _is_method(wanted):
        return []
    needed = Signature.of(wanted).required_count()
    if Signature.of(found).takes(needed):
        return []
    return [f"`__init__{Signature.of(found)}` does not fit `__init__{Signature.of(wanted)}`"]


def _features(cls: type, base: type) -> list[str]:
    methods: dict[str, list[str]] = {}
    for name in _public_names(base):
        if mark := _mark(base, name, FEATURE_MARK):
            methods.setdefault(mark, []).append(name)
    listed: Any = getattr(cls, "features", frozenset())
    if not isinstance(listed, frozenset):
        return []  # said already, by the check of attributes
    points = []
    for feature in sorted(map(str, listed - set(methods))):
        known = f"; it knows {', '.join(sorted(methods))}" if methods else ""
        points.append(f"it lists the feature {feature!r}, which {base.__name__} does not know{known}")
    for feature, names in methods.items():
        absent = (_MISSING, *(inspect.getattr_static(base, name) for name in names))
        there = {name for name in names if inspect.getattr_static(cls, name, _MISSING) not in absent}
        if feature in listed:
            points += [f"it lists the feature {feature!r} without `{name}`" for name in names if name not in there]
        elif there:
            points.append(f"it has `{'`, `'.join(sorted(there))}` but does not list the feature {feature!r}")
    return points


def _budgets(cls: type) -> list[str]:
    options = getattr(cls, "Options", None)
    fields = {**DriverOptions.model_fields, **getattr(options, "model_fields", {})}
    points = []
    for name in _public_names(cls):
        mark = _mark(cls, name, BUDGET_MARK)
        if mark is not None and isinstance(mark[0], str) and mark[0] not in fields:
            points.append(f"the time budget of `{name}` is the option {mark[0]!r}, which it does not have")
    return points


def _mark(cls: type, name: str, mark: str) -> Any:
    """Return what a decorator left on a method, of the nearest class that has it."""
    for kind in cls.__mro__:
        found = getattr(vars(kind).get(name), mark, None)
        if found is not None:
            return found
    return None


def _meant(cls: type, base: type, name: str) -> str:
    known = set(_public_names(base))
    others = [other for other in _public_names(cls) if other not in known]
    near = nearest(name, others)
    return f" (is it meant by `{near}`?)" if near else ""


def _is_method(found: Any) -> bool:
    if isinstance(found, type):
        return False
    return callable(found) or isinstance(found, staticmethod | classmethod)


def _is_async(found: Any) -> bool:
    function = getattr(found, "__func__", found)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _article(word: str) -> str:
    return f"{'an' if word[:1] in 'aeio' else 'a'} {word}"
