"""The sections of the daemon itself; those of services, drivers and plugins come with their classes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeAlias

import pydantic

from ostler.config.network import NetworkSection
from ostler.config.options import COUNT_MAX, Expects, Field, OptionsModel, Seconds, Size

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
RpcPin: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^(auto|(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5}))$"),
    Expects('"auto" or a version such as "1.0"'),
]
Member: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^(\*|@?[A-Za-z0-9_][A-Za-z0-9_.-]*\$?|key:[A-Za-z0-9][A-Za-z0-9_-]{0,62})$"),
    Expects('a user ("alice" or "1000"), a group ("@staff"), a key ("key:node2") or "*"'),
]

MethodKey: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^[A-Za-z0-9_*-]+\.[A-Za-z0-9_*.]+$"),
    Expects('a topic and a method, each with * for anything: "volume.delete", "volume.*", "*.describe"'),
]
Needed: TypeAlias = Literal["viewer", "operator", "admin", "nobody"]


def host_name() -> str:
    """Return the first label of the machine's name, with anything that may not stand in a host's name made a dash."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().partition(".")[0]).strip("-_") or "localhost"


class DaemonSection(OptionsModel):
    """`[daemon]`: the process as a whole."""

    host: str = Field(
        default_factory=host_name,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        expects="a host name of letters, digits, - and _, without dots",
        shown="the first label of the machine's name",
        help="Name of this host, as records, events and other hosts know it",
        reload="daemon",
    )
    start_timeout: Seconds = Field(
        600, gt=0, help="The daemon gives up when the required services are not up after this long", reload="daemon"
    )
    stop_timeout: Seconds = Field(
        60, gt=0, help="A stop takes no longer than this; what still runs then is named and left behind", reload="live"
    )
    fast_stop_timeout: Seconds = Field(
        5, gt=0, help="The same for a fast stop, asked for by a second SIGTERM or SIGINT", reload="live"
    )
    reload_timeout: Seconds = Field(
        60, gt=0, help="A reload gives up a step that takes longer than this, and names it", reload="live"
    )


class PluginsSection(OptionsModel):
    """`[plugins]`: which plugins must, may and may not load; names are those of `ostler plugin list`."""

    required: list[str] = Field(
        [],
        help="Plugins without which the daemon refuses to start; any other failure is that plugin's alone",
        reload="daemon",
    )
    disabled: list[str] = Field([], help="Plugins that are found, and listed, but not loaded", reload="daemon")
    blocked: list[str] = Field([], help="Plugins that may not even be imported, whoever asks for them", reload="daemon")

    def cross_check(self) -> Iterable[tuple[str, str]]:
        """A plugin cannot be required and kept out at once."""
        for option, names in (("disabled", self.disabled), ("blocked", self.blocked)):
            for name in sorted({*names} & {*self.required}):
                yield option, f'"{name}" is required as well; take it out of one of the two lists'


class AccessSection(OptionsModel):
    """`[access]`: who may do what over the sockets; root and the daemon's own user may do everything.

    Members are names of users (`"alice"`), user ids (`"1000"`), groups (`"@operators"`), `"*"` for every local user, or
    keys of other hosts by their names in `[network.keys]` (`"key:node2"`).
    """

    viewer: list[Member] = Field([], help="Who may look: status, lists, events")
    operator: list[Member] = Field([], help="Who may also work: create, enable, drain")
    admin: list[Member] = Field([], help="Who may also change the daemon: reload, log levels, database")
    methods: dict[MethodKey, Needed] = Field(
        {},
        help="Roles of single methods instead of those that their authors ask for: "
        '`"volume.delete" = "admin"`, `"volume.*" = "operator"`, `"*.describe" = "nobody"`; the most exact one wins',
    )


class AuditSection(OptionsModel):
    """`[audit]`: how much is kept of who did what; `ostler audit` shows it."""

    count: int = Field(100_000, ge=100, le=COUNT_MAX, help="The most entries that are kept; the oldest go first")
    age: Seconds = Field("90d", ge=3600, help="Older entries are removed")


class TelemetrySection(OptionsModel):
    """`[telemetry]`: what is told to tracing systems."""

    otel: bool = Field(
        False,
        help="Whether requests become spans and metrics of OpenTelemetry; needs the extra `ostler[otel]`",
        reload="daemon",
    )


class LogSection(OptionsModel):
    """`[log]`: what is logged and how."""

    level: Level = Field("info", help="Messages below this level are dropped")
    format: Literal["auto", "journal", "text", "json"] = Field(
        "auto", help="Where and how: `auto` is the journal under systemd, else text on stderr"
    )
    levels: dict[str, Level] = Field({}, help='Levels of single loggers, such as `"ostler.messaging" = "debug"`')


class MessagingSection(OptionsModel):
    """`[messaging]`: the sockets and the limits of what they carry."""

    socket_mode: str = Field(
        "auto",
        pattern=r"^(auto|0?[0-7]{3})$",
        expects='"auto", or a file mode in octal digits such as "0660"',
        help="File mode of the sockets; with auto 0600 as long as [access] gives no role to a local user, and 0666 "
        "from then on. Whoever can connect still needs a role",
    )
    max_memory: Size = Field(
        "256MiB",
        ge=1024 * 1024,
        help="What all callers together may make the daemon hold: requests and answers on their way, events that wait "
        "for them. One of them may have as much as is left, that is half when it is alone",
    )
    max_message_size: Size = Field("16MiB", ge=4096, help="Larger messages are refused", reload="daemon")
    max_elements: int = Field(
        65536,
        ge=1024,
        le=COUNT_MAX,
        help="Numbers, texts, lists and maps that one request may hold; one more is refused",
    )
    max_in_flight: int = Field(
        10000, ge=1, le=COUNT_MAX, help="Requests at once in the whole daemon; one more is refused as busy"
    )
    max_in_flight_per_peer: int = Field(
        2000,
        ge=1,
        le=COUNT_MAX,
        help="Requests at once of one connection, and casts of one uid or key; one more is refused as busy",
    )
    max_streams: int = Field(
        1000, ge=1, le=COUNT_MAX, help="Streams open at once in the whole daemon; one more is refused as busy"
    )
    max_streams_per_peer: int = Field(
        100, ge=1, le=COUNT_MAX, help="Streams open at once of one uid or key; one more is refused as busy"
    )
    retry_answers: int = Field(
        1000,
        ge=1,
        le=COUNT_MAX,
        help="Answers kept for requests that may be sent again; one caller gets half of what is left",
    )
    retry_size: Size = Field("16MiB", help="The memory that these may take; one above a quarter of it is not kept")
    retry_age: Seconds = Field(
        "10min", gt=0, help="How long a request that came again is known, and not run a second time"
    )
    retry_grace: Seconds = Field(
        5, ge=0, help="How long such a request is worked on when its caller has gone and may come back"
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=100_000,
        help="Connections at once to the unix sockets, and as many from the network; one more is refused as busy",
        reload="daemon",
    )
    event_queue: int = Field(
        10000, ge=1, le=COUNT_MAX, help="Events that wait for one slow subscriber before it loses some", reload="daemon"
    )
    beat_interval: Seconds = Field(
        1, gt=0, le=60, help="How often a server tells its callers that it is alive while it works", reload="daemon"
    )
    rpc_pins: dict[str, RpcPin] = Field(
        {},
        help='The newest RPC version that callers here may use of a topic: `volume = "1.0"`; without a pin, or with '
        '"auto", the lowest that its living services speak',
    )
    rpc_grace: Seconds = Field(
        300, ge=0, help="How long a service that stopped, died or was disabled still holds callers to its version"
    )
    call_timeout: Seconds = Field(60, gt=0, help="Deadline of a call between services that names none", reload="daemon")


TopicPattern: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^!?[A-Za-z0-9_*][A-Za-z0-9_.:@*-]*$"),
    Expects('a topic, with * for any characters and ! in front for none of it: "volume", "fanout.*", "!scheduler"'),
]


class EventsSection(OptionsModel):
    """`[events]`: what is kept of the events that are published."""

    journal: list[TopicPattern] = Field(
        [],
        help="Topics whose events are kept in the database, to be read again with `ostler events --from 1`, beside "
        'those of managers that ask for it: `"volume"`, `"*"`; `"!volume"` keeps none of a topic',
    )
    journal_count: int = Field(
        10_000, ge=1, le=COUNT_MAX, help="The most events that are kept of one topic; the oldest go first"
    )
    journal_age: Seconds = Field("7d", gt=0, help="Older events are removed")
    last_count: int = Field(
        1000, ge=0, le=COUNT_MAX, help="The last events, one of a key, that are kept in memory for late joiners"
    )
    last_size: Size = Field("1MiB", help="The memory that these may take; an event above an eighth of it is left out")


class NotificationsSection(OptionsModel):
    """`[notifications]`: who hears of what managers tell, by priority.

    The sinks are `events` (published as an event), `log` (a line in the log), and those that plugins bring.
    """

    audit: list[str] = Field(["events"], help="Sinks for what is told for the record: who did what")
    debug: list[str] = Field([], help="Sinks for what helps to find a defect")
    info: list[str] = Field(["events"], help="Sinks for what happened as it should")
    warn: list[str] = Field(["events", "log"], help="Sinks for what is not as it should be")
    error: list[str] = Field(["events", "log"], help="Sinks for what failed")
    critical: list[str] = Field(["events", "log"], help="Sinks for what failed and others depend on")
    sample: list[str] = Field(["events"], help="Sinks for measurements")


class StoreSection(OptionsModel):
    """`[store]`: the database."""

    synchronous: Literal["FULL", "NORMAL"] = Field(
        "FULL",
        help="`FULL` keeps what was acknowledged even when the power fails, `NORMAL` may lose the last moments then",
        reload="daemon",
    )
    busy_timeout: Seconds = Field(
        60, ge=0, le=86400, help="How long a write waits for a database that somebody else has locked", reload="daemon"
    )
    backups: int = Field(3, ge=1, le=100, help="Backups kept from before migrations", reload="daemon")


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
    "store": StoreSection,
    "telemetry": TelemetrySection,
}
