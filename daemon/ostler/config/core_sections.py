"""The sections of the daemon itself; those of services, drivers and plugins are declared by their classes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeAlias

import pydantic

from ostler.config.network_section import NetworkSection
from ostler.config.options import COUNT_MAX, Expects, Field, OptionsModel, Seconds, Size

LogLevelName: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
RpcPin: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^(auto|(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5}))$"),
    Expects('"auto" or a version such as "1.0"'),
]
AccessMember: TypeAlias = Annotated[
    str,
    pydantic.Field(
        pattern=r"^(\*|@?[A-Za-z0-9_][A-Za-z0-9_.-]*\$?|key:[A-Za-z0-9][A-Za-z0-9_-]{0,62}|"
        r"cert:[!-~][ -~]{0,253})$"
    ),
    Expects(
        'a user ("alice" or "1000"), a group ("@staff"), a key ("key:node2"), a client certificate ("cert:alice") '
        'or "*"'
    ),
]

MethodPattern: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^[A-Za-z0-9_*-]+\.[A-Za-z0-9_*.]+$"),
    Expects('a topic and a method, with * as wildcard: "volume.delete", "volume.*", "*.describe"'),
]
RequiredRole: TypeAlias = Literal["viewer", "operator", "admin", "nobody"]


def default_host_name() -> str:
    """Return the first label of the machine's name; characters that a host name must not contain become dashes."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().partition(".")[0]).strip("-_") or "localhost"


class DaemonSection(OptionsModel):
    """`[daemon]`: the process as a whole."""

    host: str = Field(
        default_factory=default_host_name,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        expects="a host name of letters, digits, - and _, without dots",
        shown="the first label of the machine's name",
        help="Name of this host in records, in events and for other hosts",
        reload="daemon",
    )
    start_timeout: Seconds = Field(
        600, gt=0, help="The daemon exits if the required services are not up within this time of its start"
    )
    stop_timeout: Seconds = Field(
        60, gt=0, help="Time limit of a stop; whatever is still running then is logged and abandoned", reload="live"
    )
    fast_stop_timeout: Seconds = Field(
        5, gt=0, help="Time limit of a fast stop, requested by a second SIGTERM or SIGINT", reload="live"
    )
    reload_timeout: Seconds = Field(
        60,
        gt=0,
        help="Time limit of each step of a reload; a step that exceeds it is aborted",
        reload="live",
    )
    gone_age: Seconds = Field(
        30 * 86400,
        gt=0,
        help="The record of a service that has been gone for this long is removed: its host is no longer a "
        "peer, or no configuration has it",
        reload="live",
    )
    console: bool = Field(
        False,
        help="Whether root and the daemon's user may run Python in the daemon with `ostler console`",
        reload="daemon",
    )


class PluginsSection(OptionsModel):
    """`[plugins]`: which plugins are required, disabled or blocked; names are those of `ostler plugin list`."""

    required: list[str] = Field(
        [],
        help="Plugins without which the daemon does not start; other plugins may fail",
        reload="live",
    )
    disabled: list[str] = Field([], help="Plugins that are listed, but not loaded", reload="live")
    blocked: list[str] = Field([], help="Plugins that must not be imported, not even by other code", reload="daemon")

    def validate_options(self) -> Iterable[tuple[str, str]]:
        """Refuse plugins that are required and disabled or blocked."""
        for option, names in (("disabled", self.disabled), ("blocked", self.blocked)):
            for name in sorted({*names} & {*self.required}):
                yield option, f'"{name}" is also in `required`; remove it from one of the two lists'


class AccessSection(OptionsModel):
    """`[access]`: the roles of users and hosts; root and the daemon's own user have all roles.

    Members are names of users (`"alice"`), user ids (`"1000"`), groups (`"@operators"`), `"*"` for every local user,
    keys by their names in `[network.keys]` (`"key:node2"`), or names in client certificates (`"cert:alice"`), which a
    plugin that listens on a network has checked.
    """

    viewer: list[AccessMember] = Field([], help="Members that may read: status, lists, events")
    operator: list[AccessMember] = Field([], help="Members that may also operate: create, enable, drain")
    admin: list[AccessMember] = Field(
        [], help="Members that may also administer the daemon: reload, log levels, database"
    )
    methods: dict[MethodPattern, RequiredRole] = Field(
        {},
        help="Roles of single methods, which replace those declared by their authors: "
        '`"volume.delete" = "admin"`, `"volume.*" = "operator"`, `"*.describe" = "nobody"`; the most specific wins',
    )


class AuditSection(OptionsModel):
    """`[audit]`: the limits of the audit log, which `ostler audit` shows."""

    count: int = Field(100_000, ge=100, le=COUNT_MAX, help="Maximum number of entries; the oldest are removed first")
    age: Seconds = Field("90d", ge=3600, help="Maximum age of an entry")


class OperationsSection(OptionsModel):
    """`[operations]`: the limits of operations, which `ostler operation list` shows."""

    max_queued: int = Field(
        10_000,
        ge=1,
        le=COUNT_MAX,
        help="Operations of one service that may wait; one more is refused as busy. One caller may use as much as is "
        "left free, so a single caller gets half",
    )
    count: int = Field(
        10_000, ge=1, le=COUNT_MAX, help="Maximum number of ended operations; the oldest are removed first"
    )
    age: Seconds = Field("30d", ge=60, help="Maximum age of an ended operation")


class TelemetrySection(OptionsModel):
    """`[telemetry]`: the export to tracing systems."""

    otel: bool = Field(
        False,
        help="Whether to export spans and metrics of requests to OpenTelemetry; needs the extra `ostler[otel]`",
        reload="daemon",
    )


class LogSection(OptionsModel):
    """`[log]`: the log levels and the log format."""

    level: LogLevelName = Field("info", help="Messages below this level are dropped")
    format: Literal["auto", "journal", "text", "json"] = Field(
        "auto", help="Format and destination: `auto` is the journal under systemd, otherwise text on stderr"
    )
    levels: dict[str, LogLevelName] = Field({}, help='Levels of single loggers, such as `"ostler.messaging" = "debug"`')


class MessagingSection(OptionsModel):
    """`[messaging]`: the sockets, and the limits of requests, streams and events."""

    socket_mode: str = Field(
        "auto",
        pattern=r"^(auto|0?[0-7]{3})$",
        expects='"auto", or a file mode in octal digits such as "0660"',
        help="File mode of the sockets; auto is 0600 while [access] gives no role to a local user, otherwise 0666. "
        "A user who can connect still needs a role",
    )
    max_memory: Size = Field(
        "256MiB",
        ge=1024 * 1024,
        help="Memory that the daemon uses for all callers: requests and results in transit, and queued events. One "
        "caller may use as much as is still free, so that a single one gets half",
    )
    max_message_size: Size = Field(
        "16MiB", ge=4096, help="Maximum size of a message; larger ones are refused", reload="daemon"
    )
    max_elements: int = Field(
        65536,
        ge=1024,
        le=COUNT_MAX,
        help="Maximum number of numbers, texts, lists and maps in one request; larger requests are refused",
    )
    max_in_flight: int = Field(
        10000,
        ge=1,
        le=COUNT_MAX,
        help="Maximum number of concurrent requests of the daemon; further ones are refused as busy",
    )
    max_in_flight_per_peer: int = Field(
        2000,
        ge=1,
        le=COUNT_MAX,
        help="Maximum number of concurrent requests of one connection, and of casts of one uid or key; further ones "
        "are refused as busy",
    )
    max_streams: int = Field(
        1000, ge=1, le=COUNT_MAX, help="Maximum number of open streams of the daemon; further ones are refused as busy"
    )
    max_streams_per_peer: int = Field(
        100,
        ge=1,
        le=COUNT_MAX,
        help="Maximum number of open streams of one uid or key; further ones are refused as busy",
    )
    dedup_results: int = Field(
        1000,
        ge=1,
        le=COUNT_MAX,
        help="Maximum number of results stored for requests that may be retried; one caller gets half of what is free",
    )
    dedup_size: Size = Field(
        "16MiB", help="Maximum memory of these results; a result above a quarter of it is not stored"
    )
    dedup_ttl: Seconds = Field(
        "10min", gt=0, help="How long a retried request is recognised, and not run a second time"
    )
    orphan_grace: Seconds = Field(
        5, ge=0, help="How long such a request continues after its caller has disconnected and may reconnect"
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=100_000,
        help="Maximum number of connections to the unix sockets, and likewise from the network; others are refused",
        reload="daemon",
    )
    event_queue: int = Field(
        10000,
        ge=1,
        le=COUNT_MAX,
        help="Maximum number of events queued for a slow subscriber; further ones are lost",
        reload="daemon",
    )
    keepalive_interval: Seconds = Field(
        1,
        gt=0,
        le=60,
        help="How often a server sends a keepalive to its callers while it works on their requests",
    )
    rpc_pins: dict[str, RpcPin] = Field(
        {},
        help='The newest RPC version of a topic that callers on this host may use: `volume = "1.0"`; without a pin, '
        'or with "auto", the newest that all running services of the topic support',
    )
    rpc_pin_grace: Seconds = Field(
        300, ge=0, help="How long a service that is stopped, failed or disabled still limits the version of callers"
    )
    call_timeout: Seconds = Field(60, gt=0, help="Default deadline of a call between services", reload="daemon")


TopicPattern: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^!?[A-Za-z0-9_*][A-Za-z0-9_.:@*-]*$"),
    Expects('a topic, with * as wildcard, or with a leading ! to exclude it: "volume", "fanout.*", "!scheduler"'),
]


class EventsSection(OptionsModel):
    """`[events]`: the journal and the cache of published events."""

    journal: list[TopicPattern] = Field(
        [],
        help="Topics whose events are stored in the database, to be replayed with `ostler events --from 1`, in "
        'addition to those of managers that request it: `"volume"`, `"*"`; `"!volume"` excludes a topic',
    )
    journal_count: int = Field(
        10_000, ge=1, le=COUNT_MAX, help="Maximum number of events stored per topic; the oldest are removed first"
    )
    journal_age: Seconds = Field("7d", gt=0, help="Maximum age of an event in the journal")
    last_value_keys: int = Field(
        1000,
        ge=0,
        le=COUNT_MAX,
        help="Maximum number of keys whose last event is stored in memory for late subscribers",
    )
    last_value_size: Size = Field(
        "1MiB", help="Maximum memory of these events; an event above an eighth of it is not stored"
    )


class NotificationsSection(OptionsModel):
    """`[notifications]`: the sinks for notifications of managers, by priority.

    The sinks are `events` (published as an event), `log` (a line in the log), and those that plugins provide.
    """

    audit: list[str] = Field(["events"], help="Sinks for audit records: who did what")
    debug: list[str] = Field([], help="Sinks for debugging")
    info: list[str] = Field(["events"], help="Sinks for normal operation")
    warn: list[str] = Field(["events", "log"], help="Sinks for warnings")
    error: list[str] = Field(["events", "log"], help="Sinks for failures")
    critical: list[str] = Field(["events", "log"], help="Sinks for failures that affect others")
    sample: list[str] = Field(["events"], help="Sinks for measurements")


class StoreSection(OptionsModel):
    """`[store]`: the database."""

    synchronous: Literal["FULL", "NORMAL"] = Field(
        "FULL",
        help="`FULL` loses no acknowledged write at a power failure, `NORMAL` may lose the last ones",
        reload="daemon",
    )
    busy_timeout: Seconds = Field(
        60,
        ge=0,
        le=86400,
        help="How long a write waits for a database that another process has locked",
        reload="daemon",
    )
    backups: int = Field(3, ge=1, le=100, help="How many backups from before migrations are stored")
    slow_transaction: Seconds = Field(
        1,
        ge=0.01,
        le=86400,
        help="A write, a commit or a read of the database that takes longer is named in the log, with who asked for it",
    )


CORE_SECTIONS: Mapping[str, type[OptionsModel]] = {
    "daemon": DaemonSection,
    "events": EventsSection,
    "plugins": PluginsSection,
    "access": AccessSection,
    "audit": AuditSection,
    "log": LogSection,
    "messaging": MessagingSection,
    "notifications": NotificationsSection,
    "network": NetworkSection,
    "operations": OperationsSection,
    "store": StoreSection,
    "telemetry": TelemetrySection,
}
