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
    from ostler.driver import Driver, DriverEnvironment, DriverOptions, DriverOptionsT, Drivers, feature, time_budget
    from ostler.errors import (
        Busy,
        Cancelled,
        ConfigurationError,
        Conflict,
        ConnectionLost,
        ContractError,
        DaemonNotRunning,
        DeadlineExceeded,
        Deadlock,
        Draining,
        DriverCircuitOpen,
        DriverCrashed,
        DriverError,
        DriverLimitExceeded,
        DriverNotFound,
        DriverNotReady,
        DriverStuck,
        EncodeError,
        FeatureNotSupported,
        InternalError,
        InvalidArguments,
        InvalidInput,
        LockTimeout,
        MalformedMessage,
        MessageTooLarge,
        MessagingError,
        MethodNotFound,
        NoCapacity,
        NotExposed,
        NotFound,
        NotPermitted,
        OperationInterrupted,
        OstlerError,
        PluginError,
        RemoteError,
        RequestError,
        ResultExpired,
        SchemaTooNew,
        ServiceDisabled,
        ServiceError,
        ServiceFrozen,
        ServiceNotFound,
        StartRefused,
        StoreCorrupt,
        StoreError,
        StoreInUse,
        StoreUnavailable,
        UnsupportedVersion,
        UntrustedOwner,
        WrongCallKind,
        check_length,
        error_line,
    )
    from ostler.files import open_beneath
    from ostler.hookspecs import hookimpl
    from ostler.locks import LockHold, Locks
    from ostler.manager import Manager, ManagerEnvironment, ManagerOptions
    from ostler.manager.on_event import on_event
    from ostler.manager_types import DaemonAddresses, LockStatus
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
    from ostler.messaging.access.secret_arguments import SecretText
    from ostler.messaging.clients.async_operation import AsyncOperation
    from ostler.messaging.clients.operation import Operation
    from ostler.messaging.gateway.caller import Caller
    from ostler.messaging.gateway.gateway import Gateway
    from ostler.messaging.gateway.gateway_client import GatewayClient
    from ostler.messaging.interface.exposure import Durable
    from ostler.messaging.observers.instrument import instrument
    from ostler.messaging.wire.request_context import current_trace, trace_context
    from ostler.periodic_tasks import periodic
    from ostler.spelling import nearest
    from ostler.store import Database, KeyValue, Record, Statement, Store
    from ostler.types import (
        CapabilityReport,
        DriverState,
        Json,
        OperationState,
        OperationStatus,
        Peer,
        Role,
        ServiceState,
        ServiceStatus,
        Upgrade,
    )
    from ostler.wall_time import WallTime

_EXPORTS = {
    "aio": ["waiting_for"],
    "availability": ["capability_lifetime", "unavailable_reason"],
    "clock": ["Clock"],
    "config": [
        "Field", "OptionsModel", "Seconds", "Secret", "Size", "format_seconds", "format_size", "parse_size",
        "ValidationContext",
    ],
    "driver": ["Driver", "DriverEnvironment", "DriverOptions", "DriverOptionsT", "Drivers", "feature", "time_budget"],
    "errors": [
        "ResultExpired", "MalformedMessage", "Busy", "Cancelled", "ConfigurationError", "Conflict", "ConnectionLost",
        "ContractError", "Deadlock", "DeadlineExceeded", "Draining", "DriverCircuitOpen", "DriverCrashed",
        "DriverError", "DriverLimitExceeded", "DriverNotFound", "DriverNotReady",
        "DriverStuck", "EncodeError", "FeatureNotSupported", "InternalError", "InvalidArguments", "InvalidInput",
        "LockTimeout",
        "MessageTooLarge", "MessagingError", "MethodNotFound", "NoCapacity", "NotExposed", "NotFound", "NotPermitted",
        "DaemonNotRunning", "OperationInterrupted", "OstlerError", "PluginError", "RemoteError", "RequestError",
        "SchemaTooNew",
        "ServiceDisabled", "ServiceError", "ServiceFrozen", "StoreCorrupt", "StoreError", "StoreInUse",
        "StoreUnavailable",
        "ServiceNotFound", "StartRefused", "UnsupportedVersion", "UntrustedOwner", "WrongCallKind",
        "check_length", "error_line",
    ],
    "files": ["open_beneath"],
    "hookspecs": ["hookimpl"],
    "locks": ["LockHold", "Locks"],
    "manager": ["Manager", "ManagerEnvironment", "ManagerOptions"],
    "manager.on_event": ["on_event"],
    "manager_types": ["DaemonAddresses", "LockStatus"],
    "messaging": [
        "AsyncClient", "Client", "Context", "Event", "Gap", "Notification", "NotificationSink", "Notifier", "Retry",
        "RpcApi", "ServiceClient", "exposed", "remote",
    ],
    "messaging.access.secret_arguments": ["SecretText"],
    "messaging.clients.async_operation": ["AsyncOperation"],
    "messaging.clients.operation": ["Operation"],
    "messaging.gateway.caller": ["Caller"],
    "messaging.gateway.gateway": ["Gateway"],
    "messaging.gateway.gateway_client": ["GatewayClient"],
    "messaging.interface.exposure": ["Durable"],
    "messaging.observers.instrument": ["instrument"],
    "messaging.wire.request_context": ["current_trace", "trace_context"],
    "periodic_tasks": ["periodic"],
    "spelling": ["nearest"],
    "store": ["Database", "KeyValue", "Record", "Statement", "Store"],
    "types": [
        "CapabilityReport", "DriverState", "Json", "OperationState",
        "OperationStatus", "Peer", "Role", "ServiceState", "ServiceStatus", "Upgrade",
    ],
    "wall_time": ["WallTime"],
}  # fmt: skip
_MODULE_BY_NAME = {name: room for room, names in _EXPORTS.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "AsyncOperation",
    "Busy",
    "Caller",
    "Cancelled",
    "CapabilityReport",
    "Client",
    "Clock",
    "ConfigurationError",
    "Conflict",
    "ConnectionLost",
    "Context",
    "ContractError",
    "DaemonAddresses",
    "DaemonNotRunning",
    "Database",
    "DeadlineExceeded",
    "Deadlock",
    "Draining",
    "Driver",
    "DriverCircuitOpen",
    "DriverCrashed",
    "DriverEnvironment",
    "DriverError",
    "DriverLimitExceeded",
    "DriverNotFound",
    "DriverNotReady",
    "DriverOptions",
    "DriverOptionsT",
    "DriverState",
    "DriverStuck",
    "Drivers",
    "Durable",
    "EncodeError",
    "Event",
    "FeatureNotSupported",
    "Field",
    "Gap",
    "Gateway",
    "GatewayClient",
    "InternalError",
    "InvalidArguments",
    "InvalidInput",
    "Json",
    "KeyValue",
    "LockHold",
    "LockStatus",
    "LockTimeout",
    "Locks",
    "MalformedMessage",
    "Manager",
    "ManagerEnvironment",
    "ManagerOptions",
    "MessageTooLarge",
    "MessagingError",
    "MethodNotFound",
    "NoCapacity",
    "NotExposed",
    "NotFound",
    "NotPermitted",
    "Notification",
    "NotificationSink",
    "Notifier",
    "Operation",
    "OperationInterrupted",
    "OperationState",
    "OperationStatus",
    "OptionsModel",
    "OstlerError",
    "Peer",
    "PluginError",
    "Record",
    "RemoteError",
    "RequestError",
    "ResultExpired",
    "Retry",
    "Role",
    "RpcApi",
    "SchemaTooNew",
    "Seconds",
    "Secret",
    "SecretText",
    "ServiceClient",
    "ServiceDisabled",
    "ServiceError",
    "ServiceFrozen",
    "ServiceNotFound",
    "ServiceState",
    "ServiceStatus",
    "Size",
    "StartRefused",
    "Statement",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreInUse",
    "StoreUnavailable",
    "UnsupportedVersion",
    "UntrustedOwner",
    "Upgrade",
    "ValidationContext",
    "WallTime",
    "WrongCallKind",
    "capability_lifetime",
    "check_length",
    "current_trace",
    "error_line",
    "exposed",
    "feature",
    "format_seconds",
    "format_size",
    "hookimpl",
    "instrument",
    "nearest",
    "on_event",
    "open_beneath",
    "parse_size",
    "periodic",
    "remote",
    "time_budget",
    "trace_context",
    "unavailable_reason",
    "waiting_for",
]  # fmt: skip
__getattr__ = lazy_names(__name__, _MODULE_BY_NAME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
