"""The parts of a started daemon, as they are handed to those who work with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ostler.daemon.connectivity.audit_service import AuditService
    from ostler.daemon.connectivity.messaging_stack import MessagingStack
    from ostler.service import Runtime
    from ostler.store import Store


class DaemonParts(NamedTuple):
    """What a start creates, complete: there is none before all of it exists.

    Args:
        store: The database, opened and migrated.
        messaging: The sockets, the dispatcher, the publisher and the links to peers.
        audit_service: The audit log.
        runtime: The services.
    """

    store: Store
    messaging: MessagingStack
    audit_service: AuditService
    runtime: Runtime
