"""Checks a class against the base class that is its contract: drivers, managers and extensions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from ostler.driver.driver import BUDGET_ATTRIBUTE, FEATURE_ATTRIBUTE, Driver, DriverOptions
from ostler.driver.signature import Signature, incompatibilities
from ostler.errors import ContractError
from ostler.spelling import nearest

_MISSING = object()


def require_contract(cls: Any, base: type, *, what: str, either: bool = False) -> None:
    """Raise with every point in which `cls` violates `base`; see `check_contract`.

    Args:
        cls: The class to check.
        base: The contract.
        what: What it is, for the message: `driver local of volume`.
        either: See `check_contract`.

    Raises:
        ContractError: At least one point is violated; `facts["points"]` has all of them.
    """
    points = check_contract(cls, base, either=either)
    if not points:
        return
    name = getattr(cls, "__qualname__", repr(cls))
    raise ContractError(
        f"{what}: {getattr(cls, '__module__', '?')}:{name} does not fulfil {base.__name__}: {'; '.join(points)}",
        hint="fix the class, or choose another one in the configuration",
        what=what,
        points=points,
    )


def check_contract(cls: Any, base: type, *, either: bool = False, constructed: bool = True) -> list[str]:
    """Return every point in which `cls` violates `base`, each as a sentence; empty when there is none.

    Checked are: whether it derives from `base`; abstract methods that are missing; whether each method of `base` that
    it overrides accepts every call that `base` allows (names, kinds, order, defaults); `def` against `async def`; class
    attributes, as `Options` deriving from the base's `Options`; for drivers also the features, the options named by
    `@time_budget`, and a class that overrides nothing. Nothing of the class is called, no instance is made.

    Args:
        cls: The class to check; a value that is not a class is a point of its own.
        base: The contract.
        either: Whether a method may be `def` or `async def` regardless of the base, as a manager's hooks may.
        constructed: Whether the class is called to make an instance; that of a singleton or of a factory's product
            may have any constructor.
    """
    if not isinstance(cls, type):
        return [f"it is {_article(type(cls).__name__)}, not a class"]
    points = list(_check_ancestry(cls, base))
    for name in _public_names(base):
        points += _check_member(cls, base, name, either)
    points += _check_abstract(cls, base)
    if constructed:
        points += _check_constructor(cls, base)
    if issubclass(base, Driver):
        points += _check_features(cls, base)
        points += _check_budgets(cls)
    return points


def _check_ancestry(cls: type, base: type) -> Iterator[str]:
    if not issubclass(cls, base):
        yield f"it does not derive from {base.__name__}"
    elif cls is base and base is not Driver:
        yield "it is the contract itself, not an implementation"
    elif issubclass(base, Driver) and not _added_names(cls, base) and not getattr(base, "__abstractmethods__", ()):
        yield f"it is an empty class: it overrides nothing of {base.__name__}"


def _check_abstract(cls: type, base: type) -> Iterator[str]:
    """Yield the abstract methods that the class itself, or one between it and `base`, requires."""
    own: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset()) - getattr(
        base, "__abstractmethods__", frozenset()
    )
    for name in sorted(own):
        yield f"`{name}` is abstract: it is a contract, not an implementation"


def _added_names(cls: type, base: type) -> set[str]:
    """Return the public names that classes below `base` define."""
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
        return [f"`{name}` is missing{_suggestion(cls, base, name)}"]
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
        points.append(f"`{name}` is `{got}`, it must be `{asked}`")
    try:
        asked_for, offered = Signature.from_method(wanted), Signature.from_method(found)
    except (TypeError, ValueError):  # written in C, without a signature: only a call can tell
        return points
    if wrong := incompatibilities(asked_for, offered):
        points.append(f"`{name}{offered}` is not compatible with `{name}{asked_for}`: {', '.join(wrong)}")
    return points


def _check_attribute(name: str, wanted: Any, found: Any) -> list[str]:
    if isinstance(wanted, type):
        if not isinstance(found, type) or not issubclass(found, wanted):
            return [f"`{name}` does not derive from {wanted.__name__}"]
        return []
    # A cached property is what a base class offers to those who have nothing of their own by that name.
    if wanted is None or isinstance(wanted, property | cached_property) or isinstance(found, property):
        return []
    if not isinstance(found, type(wanted)):
        got = _article(type(found).__name__)
        return [f"`{name}` is {got}, it must be {_article(type(wanted).__name__)}"]
    return []


def _check_constructor(cls: type, base: type) -> list[str]:
    """Check that the class accepts the same constructor arguments as its base, by position."""
    wanted, found = inspect.getattr_static(base, "__init__"), inspect.getattr_static(cls, "__init__")
    if found is wanted or not _is_method(found) or not _is_method(wanted):
        return []
    needed = Signature.from_method(wanted).required_count()
    if Signature.from_method(found).accepts(needed):
        return []
    return [
        f"`__init__{Signature.from_method(found)}` is not compatible with `__init__{Signature.from_method(wanted)}`"
    ]


def _check_features(cls: type, base: type) -> list[str]:
    methods: dict[str, list[str]] = {}
    for name in _public_names(base):
        if mark := _find_mark(base, name, FEATURE_ATTRIBUTE):
            methods.setdefault(mark, []).append(name)
    listed: Any = getattr(cls, "features", frozenset())
    if not isinstance(listed, frozenset):
        return []  # reported by the check of attributes
    points = []
    for feature in sorted(map(str, listed - set(methods))):
        known = f"; available: {', '.join(sorted(methods))}" if methods else ""
        points.append(f"it lists the feature {feature!r}, which {base.__name__} does not define{known}")
    for feature, names in methods.items():
        absent = (_MISSING, *(inspect.getattr_static(base, name) for name in names))
        there = {name for name in names if inspect.getattr_static(cls, name, _MISSING) not in absent}
        if feature in listed:
            points += [
                f"it lists the feature {feature!r}, but does not implement `{name}`"
                for name in names
                if name not in there
            ]
        elif there:
            points.append(f"it implements `{'`, `'.join(sorted(there))}`, but does not list the feature {feature!r}")
    return points


def _check_budgets(cls: type) -> list[str]:
    options = getattr(cls, "Options", None)
    fields = {**DriverOptions.model_fields, **getattr(options, "model_fields", {})}
    points = []
    for name in _public_names(cls):
        mark = _find_mark(cls, name, BUDGET_ATTRIBUTE)
        if mark is not None and isinstance(mark[0], str) and mark[0] not in fields:
            points.append(f"the time budget of `{name}` is the option {mark[0]!r}, which its options do not have")
    return points


def _find_mark(cls: type, name: str, mark: str) -> Any:
    """Return what a decorator left on a method, of the nearest class that has it."""
    for kind in cls.__mro__:
        found = getattr(vars(kind).get(name), mark, None)
        if found is not None:
            return found
    return None


def _suggestion(cls: type, base: type, name: str) -> str:
    known = set(_public_names(base))
    others = [other for other in _public_names(cls) if other not in known]
    near = nearest(name, others)
    return f" (did you mean it by `{near}`?)" if near else ""


def _is_method(found: Any) -> bool:
    if isinstance(found, type):
        return False
    return callable(found) or isinstance(found, staticmethod | classmethod)


def _is_async(found: Any) -> bool:
    function = getattr(found, "__func__", found)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _article(word: str) -> str:
    return f"{'an' if word[:1] in 'aeio' else 'a'} {word}"
