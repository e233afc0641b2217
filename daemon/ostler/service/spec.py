"""What a service is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ostler.clock import Clock
from ostler.config.options import OptionsModel, facts_of
from ostler.manager import ManagerOptions

if TYPE_CHECKING:
    from ostler.aio import Inbox
    from ostler.driver import DriverOptions
    from ostler.messaging import Dispatcher, LocalServiceClient
    from ostler.messaging.notify import Notifications
    from ostler.periodic import PeriodicScheduler
    from ostler.plugins import Loaded
    from ostler.service.state_events import StateEvents
    from ostler.store import ServiceRecords, Store


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One service as the configuration wants it, checked against its contracts.

    Args:
        topic: The topic it listens on.
        manager: The manager as it was loaded; `build` makes or hands out the instance.
        options: Validated options of the service.
        drivers: Driver name to the driver as loaded and its validated options.
        extensions: Kind to name to class, of the kinds that the manager asks for.
        sections: The plugins' own sections of the configuration.
        namespaces: The tables without which it does not work: those of the plugins of its manager and drivers.
    """

    topic: str
    manager: Loaded
    options: ManagerOptions
    drivers: Mapping[str, tuple[Loaded, DriverOptions]] = {}
    extensions: Mapping[str, Mapping[str, Any]] = {}
    sections: Mapping[str, Any] = {}
    namespaces: Sequence[str] = ()


class Host(NamedTuple):
    """What a host gives its services.

    Args:
        name: The host's name.
        clock: The source of time.
        inbox: The way from threads to the loop.
        store: The database, with the plugins' tables migrated.
        dispatcher: Where RPC endpoints are opened.
        client: What managers reach other services with.
        notifications: What managers tell of what happens; None where nobody listens.
    """

    name: str
    clock: Clock
    inbox: Inbox
    store: Store
    dispatcher: Dispatcher
    client: LocalServiceClient
    notifications: Notifications | None = None


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all services of a host share; handed to each by argument.

    Args:
        host: What the host gives.
        records: The services table.
        periodic: The scheduler of periodic tasks.
        events: Tells of changes of state.
        report_change: Called on the loop with the topic, when a manager says that what it offers has changed.
        offer_changed: Called on the loop with the topic, when a driver may be offered to schedulers that was not
            before, or the other way round.
    """

    host: Host
    records: ServiceRecords
    periodic: PeriodicScheduler
    events: StateEvents
    report_change: Callable[[str, str, str, bool], None] = lambda *_: None
    offer_changed: Callable[[str], None] = lambda _: None


def differing(one: OptionsModel, other: OptionsModel) -> set[str]:
    """Return what is needed to go from one set of options to the other: `live`, `driver`, `service`, `daemon`."""
    fields = type(one).model_fields
    return {facts_of(field).reload for name, field in fields.items() if getattr(one, name) != getattr(other, name)}
