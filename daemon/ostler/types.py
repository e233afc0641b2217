"""Ids, states and small frozen structs that all packages share; no behaviour here."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from ostler.reload_types import OptionChange, ReloadResult
from ostler.wall_time import WallTime

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
else:
    # msgspec cannot follow an alias that names itself; on the wire it is whatever msgpack knows, which is the same.
    Json = Any

CONTROL_TOPIC = "ostler"
"""The topic on which the daemon itself answers: status, reload, dump and the rest of the command."""

CALL_OPTIONS = frozenset({"host", "timeout", "type", "on_progress", "retry", "credit", "time_limit", "request_id"})
"""The names of the options of a call, which `client.on(…)` sets."""


def option_hint(names: Iterable[str]) -> str:
    """Return a hint for who gave options of a call as arguments of the method; empty when there is none among them."""
    found = [name for name in names if name in CALL_OPTIONS]
    if not found:
        return ""
    typed = [f"--{name}" for name in found if name in ("host", "timeout")]
    also = f", on a command line with {' and '.join(typed)}" if typed else ""
    return f"call options are set with client.on({', '.join(f'{name}=…' for name in found)}){also}"


class ServiceState(StrEnum):
    """The state that a service reports; `gone` is that of one that is no longer configured, or whose host is not."""

    STARTING = "starting"
    UP = "up"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    GONE = "gone"


class DriverState(StrEnum):
    """What a driver is: `failed` waits for its next try, `stuck` has a call that outlived its time budget."""

    INITIALISING = "initialising"
    READY = "ready"
    FAILED = "failed"
    STUCK = "stuck"
    STOPPED = "stopped"


class BreakerState(StrEnum):
    """Whether a driver's circuit breaker lets calls through: all, none, or one as a trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class PluginState(StrEnum):
    """How far a plugin came: `found` until it is imported; in a `quarantined` one the daemon has crashed repeatedly."""

    FOUND = "found"
    LOADED = "loaded"
    FAILED = "failed"
    DISABLED = "disabled"
    BLOCKED = "blocked"
    QUARANTINED = "quarantined"


class Role(StrEnum):
    """What a caller may do; each role includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    # That of the text, which is kept; the one of Enum computes it again, for each request.
    __hash__ = str.__hash__


ROLE_ORDER: Mapping[Role, int] = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A state with its reason (`why`) and time (`since`); `since` is wall time in seconds since 1970."""

    state: str
    why: str = ""
    since: WallTime = 0.0


class DriverStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A driver as an operator sees it; `retry_at` is wall time of the next try, 0 when none is due.

    `pending` says what new options wait for, empty when there are none. Of its calls `failures` failed since one
    succeeded last (at `last_success_at`) and `errors` since the start; a refusal is no failure. Unless its `breaker` is
    closed, calls are refused since `breaker_since`; one is let through as a trial from `breaker_trial_at` on. Times are
    wall times, 0 for never. `abandoned` counts instances that were given up and still hang. `seconds` is the time that
    its calls took which have ended.
    """

    name: str
    driver: str
    state: DriverState
    why: str = ""
    since: WallTime = 0.0
    retry_at: WallTime = 0.0
    tries: int = 0
    calls: int = 0
    pending: str = ""
    failures: int = 0
    errors: int = 0
    last_error: str = ""
    last_error_at: WallTime = 0.0
    last_success_at: WallTime = 0.0
    breaker: BreakerState = BreakerState.CLOSED
    breaker_since: WallTime = 0.0
    breaker_trial_at: WallTime = 0.0
    abandoned: int = 0
    seconds: float = 0.0


class Peer(msgspec.Struct, frozen=True):
    """Who sent a message: the user and process behind an ipc connection, as the kernel told at connect time.

    `uid` and `pid` are -1 for a peer that is not known by uid. `name` is for people (`uid 1000`, `local`). `key` is the
    public CURVE key (Z85) that a peer on the network has proved to hold, empty for others. `principal` is what a caller
    that came by the gateway has proved to be: `token:ci`, `cert:alice`; empty for others. `via` is `gateway` for all
    that came by it, also users of a unix socket of a plugin's own, who may be somebody's proxy. `proof` tells a token
    from another that has its name later; it is empty for all others.
    """

    uid: int = -1
    gid: int = -1
    pid: int = -1
    name: str = "unknown"
    key: str = ""
    principal: str = ""
    via: str = ""
    proof: str = ""

    @property
    def account(self) -> Hashable:
        """Whose share of what is bounded this peer uses: its key or principal, or else its uid, whatever its process.

        All connections and processes of one uid are one account. `"local"` is the daemon itself, `"unknown"` everybody
        who is not known by uid or key.
        """
        if self.key or self.principal:
            return self.key or self.principal
        if self.uid >= 0:
            return self.uid
        return "local" if self is LOCAL_PEER else "unknown"


LOCAL_PEER = Peer(name="local")
"""The daemon itself: a manager that calls another in the same process, or a periodic task."""


class BootStamp(msgspec.Struct, frozen=True):
    """A moment that does not trust the wall clock: boot id, boot-time clock in seconds, wall time in seconds."""

    boot_id: str
    boot_time: float
    wall: float


class HostIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a daemon is: its host's name, the id of its machine (for Ostler alone), of the boot, and of the process.

    An id that is not known is empty.
    """

    name: str
    machine: str = ""
    boot: str = ""
    instance: str = ""


class OperatorOverride(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator has set on a service: who did (`by`), the reason, and since when (wall time)."""

    by: str = ""
    reason: str = ""
    since: WallTime = 0.0


CauseKind: TypeAlias = Literal[
    "forced down", "frozen", "disabled", "gone", "host gone", "never started", "stopped", "failed", "starting",
    "draining", "dependency", "driver", "driver failing", "check", "worker pool", "periodic task", "background task",
    "event handler", "store outage", "version", "other",
]  # fmt: skip


class StatusCause(msgspec.Struct, frozen=True, kw_only=True):
    """One cause for which a service is not up and well.

    `text` says it in a sentence, `since` (wall time, 0 when unknown) since when, `tried` what was done about it, and
    `remedy` what would restore the service: a command, or an option to change.
    """

    kind: CauseKind
    text: str
    since: WallTime = 0.0
    tried: str = ""
    remedy: str = ""


class ServiceSign(msgspec.Struct, frozen=True, kw_only=True):
    """One sign of work in a service's last report: of the `loop`, the `pool`, `driver local`, `store` and so on.

    `age` is the seconds from its last progress to the report, -1 for none so far. For the loop it is by how much the
    report was late, for the pool for how long its longest work has been running.
    """

    subject: str
    age: float = 0.0
    text: str = ""


class BackgroundTaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A background task of a manager; `state` is `running`, `waiting` (for its restart) or `failed`."""

    name: str
    kind: str
    state: str
    restart: str = "never"
    since: WallTime = 0.0
    restarts: int = 0
    last_error: str = ""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A service as an observer sees it: as reported (`state`), observed (`up`, `link`) and set (`enabled`, `frozen`).

    `ostler.availability` judges it. `since`, `last_report` and `enabled_at` are wall times; `beat` counts the reports
    since the row was made. `namespaces` has the RPC version of each.

    `evidence` holds its problems by what they concern: `is_working`, `threads`, `driver local`, `working local`,
    `periodic task refresh`, `background task watch`. `tasks` are the background tasks of its manager, of services of
    this daemon. `report_interval`, `down_time` and `capability_interval` are the seconds that the service itself goes
    by, 0 where they are not known. `age` is how many seconds ago the observer heard of it last, by a clock that is
    never set, and `link` says why its host cannot be reached from the observer's, empty when it can; one that is not
    `addressable` is on a host that the observer has no address of. `frozen` is set while it takes no new work and
    finishes what it has, `forced_down` while an operator said that its host is dead, whatever its reports say. `causes`
    explains why it is not up and well, where that was asked for; `signs` are those of its last report. `addresses` is
    where its manager listens itself, of services of this daemon.
    """

    topic: str
    host: str
    manager: str = ""
    state: ServiceState = ServiceState.STARTING
    why: str = ""
    since: WallTime = 0.0
    up: bool = False
    enabled: bool = True
    disabled_reason: str = ""
    disabled_by: str = ""
    enabled_at: WallTime = 0.0
    frozen: OperatorOverride | None = None
    forced_down: OperatorOverride | None = None
    required: bool = True
    rpc_version: str = "1.0"
    namespaces: dict[str, str] = {}
    beat: int = 0
    last_report: WallTime = 0.0
    in_flight: int = 0
    queued: int = 0
    workers: int = 0
    here: bool = True
    drivers: list[DriverStatus] = []
    tasks: list[BackgroundTaskStatus] = []
    evidence: dict[str, str] = {}
    report_interval: float = 0.0
    down_time: float = 0.0
    capability_interval: float = 0.0
    age: float = 0.0
    link: str = ""
    addressable: bool = True
    depends_on: list[str] = []
    causes: list[StatusCause] = []
    signs: list[ServiceSign] = []
    addresses: list[str] = []


class ForcedDownResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of forcing a service down, or undoing that: the service, and which other hosts learned of it.

    `missed` has a line for each host that could not be told: it must be told there.
    """

    service: ServiceStatus
    told: list[str] = []
    missed: list[str] = []


class PluginStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin as an operator sees it; `seconds` is how long it took to load, `bundled` whether it comes with Ostler.

    `errors` counts hooks that failed, `crashes` those of the daemon in its code in the last day.
    """

    name: str
    state: PluginState
    why: str = ""
    distribution: str = ""
    version: str = ""
    module: str = ""
    api: str = ""
    required: bool = False
    hooks: list[str] = []
    seconds: float = 0.0
    bundled: bool = False
    since: WallTime = 0.0
    errors: int = 0
    last_error: str = ""
    last_error_at: WallTime = 0.0
    crashes: int = 0


class PeriodicStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A periodic task as an operator sees it; times are wall times, 0 for never; `spacing` is `30s` or a cron text.

    `health` is `failing` (its last runs failed, `failures` in a row), `slow` (due again before a run has ended) or
    `hung` (running for longer than `time_limit`), and `why` says it in a sentence; empty when nothing is wrong. `held`
    says that a run waits for the window to open, `postponed` why the next time cannot be determined, `added` that the
    manager added it while it was running, `unsaved` why a pause is not stored yet. `lateness` is the seconds from when
    the last run was due to its start, or to now while it waits for a thread; `skipped` runs were due while the one
    before had not ended.
    """

    service: str
    task: str
    spacing: str
    enabled: bool = True
    paused: bool = False
    runs: int = 0
    errors: int = 0
    last_run: WallTime = 0.0
    last_seconds: float = 0.0
    last_error: str = ""
    next_run: WallTime = 0.0
    running_since: WallTime = 0.0
    health: str = ""
    why: str = ""
    failures: int = 0
    paused_at: WallTime = 0.0
    paused_by: str = ""
    pause_reason: str = ""
    window: str = ""
    missed: str = ""
    time_limit: float = 0.0
    held: bool = False
    postponed: str = ""
    added: bool = False
    unsaved: str = ""
    lateness: float = 0.0
    skipped: int = 0


class PeriodicRunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a periodic task: the wall time of its start, its seconds, its error or an empty text."""

    started: WallTime
    seconds: float
    error: str = ""


class PeriodicHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A periodic task with its last runs, oldest first: the newest 20, and the newest failures before those."""

    task: PeriodicStatus
    runs: list[PeriodicRunStatus] = []


class OperationState(StrEnum):
    """The state of an operation: `waiting` until its next attempt is due; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the operation has ended."""
        return self in _FINAL_STATES


_FINAL_STATES = (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED)


class OperationError(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation ended with: the name of the error, those of its bases, nearest first, and what it said."""

    name: str
    names: list[str] = []
    message: str = ""
    hint: str = ""
    details: dict[str, Any] = {}


class OperationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as a caller sees it; times are wall time in seconds since 1970, 0 for none.

    Attributes:
        id: The id of the request that submitted it.
        requester: Who submitted it.
        attempts: How often it was begun.
        interruptions: How many of these attempts ended because the daemon did.
        done: How much is done, of `total`, in a unit of the method's choice; `text` says what is being done.
        steps: The names of the recorded steps, in their order.
        next_attempt_at: When a waiting operation is begun again.
        expires_at: When it must have ended; 0 for no limit.
        is_hidden: Whether arguments and result are left out, because the caller may not see them.
        arguments: The arguments.
        result: What the method returned; None before that.
        error: The error that it ended with.
    """

    id: str
    topic: str
    host: str
    method: str
    state: OperationState
    why: str = ""
    since: WallTime = 0.0
    submitted_at: WallTime = 0.0
    requester: str = ""
    attempts: int = 0
    interruptions: int = 0
    done: float = 0.0
    total: float = 0.0
    text: str = ""
    steps: list[str] = []
    next_attempt_at: WallTime = 0.0
    expires_at: WallTime = 0.0
    is_hidden: bool = False
    arguments: Json = None
    result: Json = None
    error: OperationError | None = None


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of the daemon's state; `not_well` has one line for each problem, empty without problems.

    `memory` is that of the process; of that, `callers_memory` is held for callers, who together get `max_memory`. `log`
    says where the log is, how many lines were lost since when and why, and what others changed. `needs_restart` are the
    changes that wait for a new process since a reload. In `safe` mode only plugins that come with Ostler are loaded.
    """

    host: str
    version: str
    pid: int
    state: ServiceState
    since: WallTime
    started: WallTime
    why: str = ""
    rpc: str = ""
    events: str = ""
    memory: int = 0
    threads: int = 0
    services: list[ServiceStatus] = []
    plugins: list[PluginStatus] = []
    not_well: list[str] = []
    last_reload: ReloadResult | None = None
    needs_restart: list[OptionChange] = []
    network: str = ""
    callers_memory: int = 0
    max_memory: int = 0
    log: str = ""
    safe: bool = False


class OptionValue(msgspec.Struct, frozen=True, kw_only=True):
    """One option with its value and where that comes from: `file:line:column`, `default`, `--set`; secrets: `***`.

    `text` is how a size or time span is written (`500MB`), empty for any other value.
    """

    path: str
    value: Json
    origin: str
    text: str = ""


class ArgumentDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One argument of an exposed method; `default` is JSON text, empty when the argument is required.

    `doc` is what the section `Args:` of the method's docstring says of it.
    """

    name: str
    type: str
    required: bool
    default: str = ""
    doc: str = ""


class CallerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who made a request, as the daemon knows it, and the highest role of that.

    `name` is for people (`uid 1000`, `key:laptop`). `uid` and `gid` are -1 for a caller on the network, who has a `key`
    or a `principal` (`token:ci`). `host` is the host in whose name the caller may report something, empty for none.
    """

    name: str
    role: str
    uid: int = -1
    gid: int = -1
    key: str = ""
    host: str = ""
    principal: str = ""


class MethodDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One exposed method, as `ostler describe` shows it.

    `method` is `reset`, or `admin.reset` in the namespace `admin`. `version` is the first with the method,
    `topic_version` is that of its manager or namespace, `role` the one in force here, maybe `nobody`. Of a method
    that `streams` the result is that of an item. Each request of a `durable` one is an operation. `secret` names
    the arguments whose values are never shown. The JSON Schemas are there when they were asked for.
    """

    topic: str
    method: str
    role: str
    version: str
    changes: bool
    arguments: list[ArgumentDescription]
    result: str
    doc: str
    streams: bool = False
    secret: list[str] = []
    namespace: str = ""
    topic_version: str = ""
    arguments_schema: dict[str, Json] | None = None
    result_schema: dict[str, Json] | None = None
    durable: bool = False


class MemberVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The RPC version of one service of a topic, and whether it counts; `why` says what it is and why it does not."""

    host: str
    version: str
    counts: bool = True
    why: str = ""


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """How far the services of a topic are in an upgrade.

    `cap` is the version that callers may use: that of the pin, or else the lowest among the members that count; empty
    when nobody is there. `newest` is the highest. The topic is `upgrading` while the cap is below the newest, or
    members of another major version are there; `pinned_by` says who holds it back, and why.
    """

    topic: str
    upgrading: bool = False
    cap: str = ""
    newest: str = ""
    pin: str = ""
    pinned_by: list[MemberVersion] = []
    members: list[MemberVersion] = []


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit log: who asked for what, and how that ended.

    `at` is the wall time at which it ended. `who` is what the daemon calls the peer (`uid 1000`), `user` the name of
    that uid, `key` the public key of a peer on the network, or the principal (`token:ci`) of one that came by the
    gateway. `arguments` are JSON text, cut off where they are long, with `***` for what is secret. `result` is `done`
    or the name of an error, `text` its sentence. `refused` says that the work was not begun. The same refusal of the
    same peer within a minute is one entry, with `times` and `last`.
    """

    number: int = 0
    at: WallTime
    who: str
    user: str = ""
    uid: int = -1
    pid: int = -1
    key: str = ""
    topic: str
    method: str
    arguments: str = ""
    result: str = "done"
    text: str = ""
    refused: bool = False
    request_id: str = ""
    trace: str = ""
    seconds: float = 0.0
    times: int = 1
    last: WallTime = 0.0


class MethodTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of one method since its service was loaded.

    `buckets` counts those that have ended by their time: bucket `b` is up to 2^((b+1)/4) microseconds.
    """

    method: str
    requests: int = 0
    errors: int = 0
    refused: int = 0
    in_flight: int = 0
    seconds: float = 0.0
    buckets: dict[int, int] = {}


class TopicTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of one topic since its service was loaded; `queued` wait for a thread now."""

    topic: str
    requests: int = 0
    refused: int = 0
    in_flight: int = 0
    queued: int = 0
    errors: dict[str, int] = {}
    methods: list[MethodTraffic] = []


class TrafficCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of all messages until `at`, seconds of the daemon's monotonic clock; two of these make rates.

    `clients` counts connections with requests in progress. `bad_traces` counts requests whose trace was none.
    `memory` is what callers make the daemon hold, in bytes, and `memory_refused` how often there was no room.
    """

    at: float
    host: str
    topics: list[TopicTraffic] = []
    clients: int = 0
    in_flight: int = 0
    vanished: int = 0
    garbage: dict[str, int] = {}
    bad_traces: int = 0
    published: int = 0
    memory: int = 0
    memory_refused: int = 0


class CapabilityReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a service offers: the whole of it, in place of all that it said before.

    Args:
        topic: Its topic.
        host: Its host.
        backends: Backend name to facts. Empty is a withdrawal: it offers nothing now.
        reported_at: When this was put together, by the wall clock of its host.
        stale: Whether it is older than its down time, for one that was kept.
        enabled: Whether an operator has left the service enabled.
        up: Whether the service was up when this was read, for one that was kept.
        instance: Which run of the daemon reports; another one after each restart.
        sequence: Grows with each report of an instance; one that is not above the last one known is ignored.
        ages: Backend name to how many seconds before this report its facts were asked for: they say nothing of later.
        withheld: Backend name to why it is not offered now.
        leases: Ids of the leases of requests that it has begun or ended. True: what was taken is in the facts, or
            nothing was; the lease is over. False: it is not measured yet; the lease is to be kept.
    """

    topic: str
    host: str
    backends: dict[str, dict[str, Json]]
    reported_at: WallTime
    stale: bool = False
    enabled: bool = True
    up: bool = True
    instance: str = ""
    sequence: int = 0
    ages: dict[str, float] = {}
    withheld: dict[str, str] = {}
    leases: dict[str, bool] = {}


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon tells others of its host: its services, and what they last said they can do.

    `sequence` grows with every change within one `instance`, which is another after each start of the daemon: a report
    that is not above the last one known is from before it.
    """

    host: str
    instance: str = ""
    sequence: int = 0
    services: list[ServiceStatus] = []
    capabilities: list[CapabilityReport] = []
