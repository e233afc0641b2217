"""Holds a class against the base class that it has to fulfil."""

from __future__ import annotations

from ostler.errors import ContractError


def check_contract(cls: type, base: type) -> list[str]:
    """Return every point in which `cls` does not fulfil `base`, as sentences; empty when it does."""
    return [] if issubclass(cls, base) else [f"it does not derive from {base.__qualname__}"]


def require_contract(cls: type, base: type, *, what: str) -> None:
    """Raise with every point in which `cls` does not fulfil `base`.

    Raises:
        ContractError: At least one point is missed.
    """
    points = check_contract(cls, base)
    if points:
        raise ContractError(f"{what} does not fulfil {base.__qualname__}: {'; '.join(points)}", points=points)
