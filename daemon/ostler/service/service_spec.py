"""The specification of a service, and what its host provides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ostler.clock import Clock
from ostler.manager import ManagerOptions
from ostler.manager.manager import no_gateway
from ostler.manager_types import DaemonAddresses

if TYPE_CHECKING:
    from ostler.aio import LoopQueue
    from ostler.driver import DriverOptions
    from ostler.locks import HostLocks
    from ostler.messaging import Dispatcher, LocalServiceClient, Publisher
    from ostler.messaging.events.notifications import Notifications
    from ostler.messaging.gateway.gateway import Gateway
    from ostler.operations import Operations
    from ostler.periodic_tasks import PeriodicScheduler
    from ostler.plugins import ResolvedObject
    from ostler.service.event_handlers.event_handlers import EventHandlers
    from ostler.service.state_notifier import StateNotifier
    from ostler.store import ServiceRecords, Store


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The specification of one service, checked against its contracts.

    Args:
        topic: The topic it listens on.
        manager: The loaded manager; `build` creates or returns the instance.
        options: Validated options of the service.
        drivers: Driver name to the driver as loaded and its validated options.
        extensions: Kind to name to class, of the kinds that the manager declares.
        sections: The plugins' own sections of the configuration.
        namespaces: The table namespaces that it requires: those of the plugins of its manager and drivers.
        own_sections: The names of those sections that the plugins of its manager and drivers declare.
    """

    topic: str
    manager: ResolvedObject
    options: ManagerOptions
    drivers: Mapping[str, tuple[ResolvedObject, DriverOptions]] = {}
    extensions: Mapping[str, Mapping[str, Any]] = {}
    sections: Mapping[str, Any] = {}
    namespaces: Sequence[str] = ()
    own_sections: Sequence[str] = ()


class HostServices(NamedTuple):
    """What a host provides to its services.

    Args:
        name: The host's name.
        clock: The source of time.
        loop_queue: Passes work from threads to the loop.
        store: The database, with the plugins' tables migrated.
        dispatcher: Opens RPC endpoints.
        client: For managers to call other services.
        operations: Runs the operations of the services.
        notifications: Takes the managers' notifications; None without sinks.
        publisher: Publishes the events of the host; None on a host without events.
        addresses: Where the daemon listens.
        open_gateway: Returns the gateway of the daemon, which is opened with the first call. Any thread.
    """

    name: str
    clock: Clock
    loop_queue: LoopQueue
    store: Store
    dispatcher: Dispatcher
    client: LocalServiceClient
    operations: Operations
    notifications: Notifications | None = None
    publisher: Publisher | None = None
    addresses: DaemonAddresses = DaemonAddresses()
    open_gateway: Callable[[], Gateway] = no_gateway


class ServiceContext(msgspec.Struct, frozen=True, kw_only=True):
    """What all services of a host share; passed to each as an argument.

    Args:
        host: What the host provides.
        service_records: The services table.
        periodic_scheduler: The scheduler of periodic tasks.
        locks: The locks of all services.
        state_notifier: Sends notifications of state changes.
        event_handlers: Returns what runs event handlers, which is created when it is first asked for.
        on_capability_change: Called on the loop with the topic, when a manager reports that its capabilities have
            changed.
        on_offer_changed: Called on the loop with the topic, when the drivers that may be offered to schedulers have
            changed.
    """

    host: HostServices
    service_records: ServiceRecords
    periodic_scheduler: PeriodicScheduler
    locks: HostLocks
    state_notifier: StateNotifier
    event_handlers: Callable[[], EventHandlers | None] = lambda: None
    on_capability_change: Callable[[str, str, str, bool], None] = lambda *_: None
    on_offer_changed: Callable[[str], None] = lambda _: None
