"""Ostler: one daemon that looks after what lives on a host.

These are the public names, for authors of plugins and clients; everything else may change without notice. They are
imported when first used, so that `import ostler` costs nothing. `ostler.testing` and `ostler.cli.kit` (for sub-commands
that plugins bring) are public as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    from ostler.aio import waiting_for
    from ostler.availability import capability_lifetime, unavailable_reason
    from ostler.clock import Clock
    from ostler.config import (
        Field,
        OptionsModel,
        Seconds,
        Secret,
        Size,
        ValidationContext,
        format_seconds,
        format_size,
        parse_size,
    )
    from ostler.driver import Driver, DriverEnvironment, DriverOptions, Drivers, feature, time_budget
    from ostler.errors import (
        AlreadyDone,
        BadEnvelope,
        Busy,
        CallCancelled,
        ConfigurationError,
        Conflict,
        ConnectionLost,
        ContractError,
        DeadlineExceeded,
        Draining,
        DriverError,
        DriverNotFound,
        DriverNotReady,
        DriverStuck,
        EncodeFailed,
        FeatureNotSupported,
        InternalError,
        InvalidArguments,
        InvalidInput,
        MessageTooLarge,
        MessagingError,
        NoCapacity,
        NotExposed,
        NotFound,
        NotPermitted,
        NotRunning,
        OstlerError,
        PluginError,
        RemoteError,
        RequestError,
        SchemaTooNew,
        ServiceDisabled,
        ServiceError,
        StoreCorrupt,
        StoreError,
        StoreInUse,
        StoreUnavailable,
        TargetNotFound,
        UnsupportedVersion,
        UntrustedOwner,
        WrongPattern,
        check_length,
        describe,
    )
    from ostler.files import open_beneath
    from ostler.hookspecs import hookimpl
    from ostler.manager import Manager, ManagerEnvironment, ManagerOptions
    from ostler.messaging import (
        AsyncClient,
        Client,
        Context,
        Event,
        Gap,
        Notification,
        NotificationSink,
        Notifier,
        Retry,
        RpcApi,
        ServiceClient,
        exposed,
        remote,
    )
    from ostler.messaging.secret import SecretText
    from ostler.messaging.tracing import current_trace, instrument, trace_context
    from ostler.periodic import periodic
    from ostler.spelling import nearest
    from ostler.store import Database, KeyValue, Record, Store
    from ostler.types import CapabilityReport, DriverState, Json, Peer, Role, ServiceState, ServiceStatus, Upgrade

_HOMES = {
    "aio": ["waiting_for"],
    "availability": ["capability_lifetime", "unavailable_reason"],
    "clock": ["Clock"],
    "config": [
        "Field", "OptionsModel", "Seconds", "Secret", "Size", "format_seconds", "format_size", "parse_size",
        "ValidationContext",
    ],
    "driver": ["Driver", "DriverEnvironment", "DriverOptions", "Drivers", "feature", "time_budget"],
    "errors": [
        "AlreadyDone", "BadEnvelope", "Busy", "CallCancelled", "ConfigurationError", "Conflict", "ConnectionLost",
        "ContractError", "DeadlineExceeded", "Draining", "DriverError", "DriverNotFound", "DriverNotReady",
        "DriverStuck", "EncodeFailed", "FeatureNotSupported", "InternalError", "InvalidArguments", "InvalidInput",
        "MessageTooLarge", "MessagingError", "NoCapacity", "NotExposed", "NotFound", "NotPermitted", "NotRunning",
        "OstlerError", "PluginError", "RemoteError", "RequestError", "SchemaTooNew", "ServiceDisabled", "ServiceError",
        "StoreCorrupt", "StoreError", "StoreInUse", "StoreUnavailable", "TargetNotFound", "UnsupportedVersion",
        "UntrustedOwner", "WrongPattern", "check_length", "describe",
    ],
    "files": ["open_beneath"],
    "hookspecs": ["hookimpl"],
    "manager": ["Manager", "ManagerEnvironment", "ManagerOptions"],
    "messaging": [
        "AsyncClient", "Client", "Context", "Event", "Gap", "Notification", "NotificationSink", "Notifier", "Retry",
        "RpcApi", "ServiceClient", "exposed", "remote",
    ],
    "messaging.secret": ["SecretText"],
    "messaging.tracing": ["current_trace", "instrument", "trace_context"],
    "periodic": ["periodic"],
    "spelling": ["nearest"],
    "store": ["Database", "KeyValue", "Record", "Store"],
    "types": ["CapabilityReport", "DriverState", "Json", "Peer", "Role", "ServiceState", "ServiceStatus", "Upgrade"],
}  # fmt: skip
_HOME = {name: room for room, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "AlreadyDone", "AsyncClient", "BadEnvelope", "Busy", "CallCancelled", "CapabilityReport", "Client", "Clock",
    "ConfigurationError", "Conflict", "ConnectionLost", "Context", "ContractError", "Database", "DeadlineExceeded",
    "Draining", "Driver", "DriverEnvironment", "DriverError", "DriverNotFound", "DriverNotReady", "DriverOptions",
    "DriverState", "DriverStuck", "Drivers", "EncodeFailed", "Event", "FeatureNotSupported", "Field", "Gap",
    "InternalError", "InvalidArguments",
    "InvalidInput", "Json", "KeyValue", "Manager", "ManagerEnvironment", "ManagerOptions", "MessageTooLarge",
    "MessagingError", "NoCapacity", "NotExposed", "NotFound", "NotPermitted", "NotRunning", "Notification",
    "NotificationSink", "Notifier", "OptionsModel", "OstlerError", "Peer", "PluginError", "Record", "RemoteError",
    "RequestError", "Retry", "Role", "RpcApi", "SchemaTooNew", "Seconds", "Secret", "SecretText", "ServiceClient",
    "ServiceDisabled", "ServiceError", "ServiceState", "ServiceStatus", "Size", "Store", "StoreCorrupt", "StoreError",
    "StoreInUse", "StoreUnavailable", "TargetNotFound", "UnsupportedVersion", "UntrustedOwner", "Upgrade",
    "ValidationContext", "WrongPattern", "capability_lifetime", "check_length", "current_trace", "describe", "exposed",
    "feature", "format_seconds", "format_size", "hookimpl", "instrument", "nearest", "open_beneath", "parse_size",
    "periodic", "remote", "time_budget", "trace_context", "unavailable_reason", "waiting_for",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
