"""Access and the operator's overrides of methods, from the configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ostler.messaging import Access
from ostler.messaging.access.policy import Policy
from ostler.messaging.access.roles import HostKeys

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.types import Role

_log = logging.getLogger(__name__)


def make_access(
    configuration: Configuration,
    on_groups_known: Callable[[], None] | None = None,
    disputed_keys: Collection[str] = (),
    token_role: Callable[[str, str], Role | None] | None = None,
) -> Access:
    """Return the access rules; names without a user or group on this machine are logged.

    Args:
        configuration: Whose `[access]` and `[network.keys]` these are.
        on_groups_known: Called, on any thread, when the groups of a peer have become known.
        disputed_keys: Keys that act for no host, because two hosts use them.
        token_role: Returns the role of a token by its name and proof.
    """
    options = configuration.access
    access = Access(
        viewer=options.viewer,
        operator=options.operator,
        admin=options.admin,
        keys=configuration.network.names_by_key(),
        on_groups_found=on_groups_known,
        host_keys=HostKeys(configuration.daemon.host, disputed_keys),
        token_role=token_role,
    )
    for name in access.unknown_names:
        what = "[network.keys] has no such key" if name.startswith("key:") else "no such user or group on this machine"
        _log.warning("[access] names %s: %s", name, what)
    return access


def make_policy(configuration: Configuration) -> Policy:
    """Return who may call which method."""
    return Policy(configuration.access.methods)
