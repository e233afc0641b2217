"""From the name in a configuration to a manager or driver."""

from __future__ import annotations

from typing import Any, NamedTuple


class Loaded(NamedTuple):
    """What a reference led to."""

    kind: str
    value: Any


def resolve(reference: str, base: type) -> Loaded:
    """Return what an import path `package.module:Name` leads to."""
    raise NotImplementedError
