"""Warnings about overrides in the configuration that have no effect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ostler.daemon.connectivity.access_policy import make_policy
from ostler.manager import Manager
from ostler.messaging import exposure_of
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.service.resolve import ResolvedConfiguration


def policy_warnings(resolved: ResolvedConfiguration) -> list[str]:
    """Return the lines of `[access.methods]` without effect: those that match no method, and locks on `ostler`."""
    policy = make_policy(resolved.configuration)
    if not policy.rules:
        return []
    return [*policy.unused_rules(_exposed_names_by_topic(resolved)), *policy.admin_lockouts()]


def _exposed_names_by_topic(resolved: ResolvedConfiguration) -> dict[str, Iterable[str] | None]:
    from ostler.daemon.control.control_endpoint import ControlEndpoint  # `ostler check` needs it only for rules

    found: dict[str, Iterable[str] | None] = {CONTROL_TOPIC: _exposed_names(ControlEndpoint)}
    for spec in resolved.specs:
        cls = spec.manager.cls
        # The methods of a factory's manager are unknown before it has been created.
        found[spec.topic] = None if cls is Manager else _exposed_names(cls)
    return found


def _exposed_names(cls: type[Any]) -> list[str]:
    found = [name for name in dir(cls) if exposure_of(getattr(cls, name, None)) is not None]
    for space, home in getattr(cls, "namespaces", {}).items():
        found += [f"{space}.{name}" for name in dir(home) if exposure_of(getattr(home, name, None)) is not None]
    return found
