"""Every error that Ostler raises, and how errors travel by name.

An error says what happened, to which plugin, service, driver or method, and what to do next. Its sentence is
`error.message`, its advice `error.hint`, and its details are attributes (`error.topic` is `error.details["topic"]`).
Those that programs decide by have a type, whatever a peer sent: `retry_after`, `reason` and `attempts` of every error,
`needs` and `role` of `NotPermitted`. Exit codes are those of the command.

    OstlerError
    ├── ConfigurationError            78  the configuration is wrong; carries every problem with its place
    │   ├── StartRefused               1  the configuration is valid, but a daemon cannot start with it on this host
    │   └── UntrustedOwner                files belong to, or can be written by, neither root nor whoever runs this
    ├── PluginError                       a plugin could not be found, imported or registered
    │   └── ContractError                 a manager or driver does not fulfil what its base class demands
    ├── ServiceError                      a service cannot be built, started or stopped
    ├── DriverError                       a driver failed
    │   ├── DriverNotReady                it is still initialising, or waits for its next try
    │   │   └── DriverCircuitOpen         too many calls in a row have failed; it waits for its next trial
    │   ├── DriverStuck                   a call into it has outlived its time budget
    │   ├── DriverCrashed                 its own process has ended during the call
    │   └── FeatureNotSupported           it does not offer that optional feature
    ├── StoreError                        the database
    │   ├── StoreUnavailable              it cannot be reached now (locked, full, read-only)
    │   ├── StoreInUse                    another daemon owns this state
    │   ├── StoreCorrupt                  it is damaged
    │   └── SchemaTooNew                  it was written by a newer Ostler
    ├── MessagingError                    a call, cast, fanout or event
    │   ├── DaemonNotRunning                 3  nothing listens at the address
    │   ├── ConnectionLost                the server stopped or stopped responding during the call
    │   ├── ServiceNotFound               no service on that topic, or no such host
    │   ├── MethodNotFound                the service has no such method
    │   ├── NotExposed                    the method exists but is not offered
    │   ├── WrongCallKind               2  a method that yields was called, or another one streamed
    │   ├── InvalidArguments           2  which argument, what was expected, what came
    │   ├── UnsupportedVersion            too old or too new, by name
    │   ├── NotPermitted               4  which role is missing
    │   ├── DeadlineExceeded              no answer in time
    │   ├── Cancelled                 the caller cancelled it
    │   ├── Busy                          a queue is full, or the caller's share of it; try again later
    │   ├── Draining                      the service is being stopped
    │   │   └── ServiceFrozen             an operator has frozen it: it finishes what it has and accepts no new work
    │   ├── ServiceDisabled               an operator has disabled it: it accepts no new work that is placed by choice
    │   ├── OperationInterrupted           the daemon ended while it ran, and it is not continued
    │   ├── ResultExpired                   a repeated request was completed; its answer is no longer stored
    │   ├── MessageTooLarge               above the size limit
    │   ├── EncodeError                  a value that cannot be encoded
    │   ├── MalformedMessage                   bytes that are not a valid message
    │   ├── InternalError                 the method raised something it does not declare
    │   └── RemoteError                   an error this client does not know, with its name and text
    └── RequestError                      what was asked for cannot be done (for plugins to derive from)
        ├── InvalidInput               2  a value that can never be right
        ├── NotFound                      the object does not exist
        │   └── DriverNotFound            a service has no such driver; a KeyError too
        ├── Conflict                      it already exists, or its state does not allow it
        │   ├── LockTimeout               somebody else holds the lock
        │   └── Deadlock                  waiting for the lock would never end
        └── NoCapacity                    not enough room
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeGuard, TypeVar, overload

from ostler.bounds import (
    MESSAGE_LIMIT,
    TEXT_LIMIT,
    WHY_LIMIT,
    DetailValue,
    bound_details,
    safe_str,
    truncate,
    type_name,
)
from ostler.redaction import SECRETS, redact

E = TypeVar("E")

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_NOT_PERMITTED = 4
EXIT_CONFIGURATION = 78
OWN_SHARE = "share"
"""The `reason` of a `Busy` that is about what the caller itself has in progress."""
MAX_RETRY_AFTER = 300.0
"""Seconds that a server can make a client wait before it tries again."""


class TypedDetail(Generic[E]):
    """A detail of an error as an attribute with a type: a peer may have sent anything, or nothing.

    An attribute of the same name that an error sets itself goes first.

    Args:
        read: Returns the value for what is in `details`, None if nothing is.
    """

    def __init__(self, read: Callable[[object], E]) -> None:
        self._read = read
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name of the attribute for that of the detail."""
        self._name = name

    @overload
    def __get__(self, error: None, owner: type) -> Self: ...

    @overload
    def __get__(self, error: OstlerError, owner: type) -> E: ...

    def __get__(self, error: OstlerError | None, owner: type) -> Self | E:
        """Return the value of an error's detail."""
        return self if error is None else self._read(error.details.get(self._name))


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _as_seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:  # nor NaN
        return None
    return float(min(value, MAX_RETRY_AFTER))


def _as_count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


class OstlerError(Exception):
    """The base of all errors of Ostler and of its plugins.

    Args:
        message: One sentence: what happened, and to whom. No final full stop.
        hint: What to do next, as a sentence of its own.
        details: What the error is about, for programs; values that msgpack knows, anything else is kept as text. They
            are bounded in number, length and depth; see `ostler.bounds`.
    """

    exit_code: ClassVar[int] = EXIT_FAILURE
    retry_after = TypedDetail(_as_seconds)
    """Seconds after which to try again, at most 300; None if the error does not say."""
    reason = TypedDetail(_as_text)
    """One word by which a program can tell errors of one class apart; empty if there is none."""
    attempts = TypedDetail(_as_count)
    """How often the request was sent, more than once under a `Retry` policy only."""
    remote_name: str = ""
    """The name of the error where it was raised, if its class is not known here; empty if it is."""

    def __init__(self, message: str, *, hint: str = "", **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, DetailValue] = bound_details(details)

    def __getattr__(self, name: str) -> Any:
        """Return a detail: `error.topic`. What an error has of its own (`message`, `hint`, `args`) goes first.

        Raises:
            AttributeError: It has no such detail.
        """
        # Not `self.details`: an error that is being copied has none yet, and would recurse endlessly.
        facts = self.__dict__.get("details", {})
        if name in facts:
            return facts[name]
        if name in _ATTRIBUTE_DEFAULTS:  # a class of a plugin whose constructor does not call this one
            return _ATTRIBUTE_DEFAULTS[name](self)
        raise AttributeError(f"{type(self).__name__} has no attribute or detail {name!r}")

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


_ATTRIBUTE_DEFAULTS: dict[str, Callable[[OstlerError], Any]] = {
    "message": lambda error: " ".join(map(safe_str, error.args)) or type_name(error),
    "hint": lambda _: "",
    "details": lambda _: {},
}


class SourceLine(NamedTuple):
    """The line of a file that a problem is in, without secrets and comments, and which part of it is meant.

    `column` counts the characters of `text` from 1, `length` is that of the marked part; a long line is cut.
    """

    text: str
    column: int
    length: int


class Problem(NamedTuple):
    """One thing that is wrong in a configuration: where (`file:line:column`, may be empty), what, and the line."""

    where: str
    what: str
    source: SourceLine | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class ConfigurationError(OstlerError):
    """Raised when a configuration cannot be used; `problems` holds everything that is wrong with it."""

    exit_code = EXIT_CONFIGURATION
    subject: ClassVar[str] = "in the configuration"
    """Where the problems are, for the line that counts them."""

    def __init__(self, problems: Sequence[Problem] | str, *, hint: str = "", **details: object) -> None:
        listed = [Problem("", problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(map(str, listed)), hint=hint, **details)
        self.problems = listed

    def send_sources(self) -> None:
        """Put the lines of the problems into `details`, so that whoever asked from elsewhere sees them as well."""
        sources: list[list[object]] = []
        for problem in self.problems[:_SOURCES_SENT]:
            # The message is split into lines at the other end, and a problem of a plugin may have several.
            sources += [[] for _ in str(problem).splitlines()[1:]]
            sources.append(list(problem.source) if problem.source else [])
        if any(sources):
            self.details["sources"] = to_plain(sources)


_SOURCES_SENT = 50
"""How many lines of files travel with an error; details are bounded."""


class StartRefused(ConfigurationError):
    """Raised when a configuration is valid, but a daemon cannot start with it: directories, or the database."""

    exit_code = EXIT_FAILURE
    subject = "on this host"


class UntrustedOwner(ConfigurationError):
    """Raised when files that would be obeyed belong to, or can be written by, neither root nor whoever runs this."""


class PluginError(OstlerError):
    """Raised when a plugin cannot be found, imported or registered."""


class ContractError(PluginError):
    """Raised when a manager or driver does not fulfil what its base class demands; says each point that is missed."""


class ServiceError(OstlerError):
    """Raised when a service cannot be built, started or stopped."""


class DriverError(OstlerError):
    """Raised when a driver failed; the base for the errors that drivers raise themselves."""


class DriverNotReady(DriverError):
    """Raised when a driver is called before it is ready: it is still initialising, or waits for its next try."""


class DriverCircuitOpen(DriverNotReady):
    """Raised when a call is refused because many calls in a row have failed: the circuit breaker is open.

    `retry_after` says in how many seconds a trial is let through; `since` and `why` are in its details.
    """


class DriverStuck(DriverError):
    """Raised when a call into a driver has outlived its time budget, and for each call made while it is stuck."""


class DriverCrashed(DriverError):
    """Raised when the process of a driver has ended during a call; `reason` says how. It is started again."""


class DriverLimitExceeded(DriverCrashed):
    """Raised when the process of a driver was killed during a call because it used more than the option `limit` allows.

    `limit` is in its details. Calls that were in progress at the same time get it as well.
    """


class FeatureNotSupported(DriverError):
    """Raised when a driver is asked for an optional feature that it does not offer."""


class StoreError(OstlerError):
    """Raised when the database does not do what was asked; the base of its kind."""


class StoreUnavailable(StoreError):
    """Raised when the database cannot be reached or written now: locked, read-only, or the disk is full."""


class StoreInUse(StoreError):
    """Raised when another daemon already owns this state directory."""


class StoreCorrupt(StoreError):
    """Raised when the database file is damaged."""


class SchemaTooNew(StoreError):
    """Raised when the database was written by a newer version than this one."""


class MessagingError(OstlerError):
    """Raised when a call, cast, fanout or event did not go as asked; the base of its kind."""


class DaemonNotRunning(MessagingError):
    """Raised when nothing listens at the address: the daemon is not running."""

    exit_code = EXIT_NOT_RUNNING


class ConnectionLost(MessagingError):
    """Raised when the server stopped, or stopped responding, while the call was in progress."""


class ServiceNotFound(MessagingError):
    """Raised when a topic has no service, or a host is not known; also for a service that failed to start."""


class MethodNotFound(MessagingError):
    """Raised when a service has no method of that name; to try again does not help."""


class NotExposed(MessagingError):
    """Raised when a method exists on the manager but is not marked `@exposed`."""


class WrongCallKind(MessagingError):
    """Raised when a method that yields is called or cast, and when one that does not is asked for a stream."""

    exit_code = EXIT_USAGE


class InvalidArguments(MessagingError):
    """Raised when arguments do not fit a method: which one, what was expected, what came."""

    exit_code = EXIT_USAGE


class UnsupportedVersion(MessagingError):
    """Raised when a method is asked for in a version that this service does not speak."""


class NotPermitted(MessagingError):
    """Raised when the caller lacks the role that a method requires; names it."""

    exit_code = EXIT_NOT_PERMITTED
    needs = TypedDetail(_as_text)
    """The role that the method requires, or `nobody`; empty if the error is not about a role."""
    role = TypedDetail(_as_text)
    """The role that the caller has; empty if it has none, or the error is not about a role."""


class DeadlineExceeded(MessagingError):
    """Raised when a call was not answered before its deadline."""


class Cancelled(MessagingError):
    """Raised in a method, and to its caller, when the caller cancelled the call; also for a no to a question."""


class Busy(MessagingError):
    """Raised when a queue is full, or a service is starting; `retry_after` says when to try again.

    `reason` is `share` when it is the caller that has as much as it may, while others are served.
    """

    @property
    def is_own_share(self) -> bool:
        """Whether the caller has used its share: it is to do less, and nobody else is affected."""
        return self.reason == OWN_SHARE


class Draining(MessagingError):
    """Raised when a service is being stopped and accepts no new work."""


class ServiceFrozen(Draining):
    """Raised when an operator has frozen a service: it finishes what it has, and accepts no new work until it thaws."""


class ServiceDisabled(MessagingError):
    """Raised when an operator has disabled a service: it accepts no new work that is placed there by choice."""


class OperationInterrupted(MessagingError):
    """Raised for an operation that was running when the daemon ended, and is not continued."""


class ResultExpired(MessagingError):
    """Raised for a repeated request that was completed, but whose answer is no longer stored."""


class MessageTooLarge(MessagingError):
    """Raised when a message is above the size limit."""


class EncodeError(MessagingError):
    """Raised when a value cannot be encoded."""


class MalformedMessage(MessagingError):
    """Raised when bytes are not a valid message; `reason` is the word by which it is counted."""


class InternalError(MessagingError):
    """Raised when a method failed with something other than an `OstlerError`; its traceback is in the server's log."""


class RemoteError(MessagingError):
    """Raised for an error that this client has no class for; `details["name"]` is its name on the server."""


class RequestError(OstlerError):
    """Raised when what was asked for cannot be done; the base for what plugins refuse."""


class InvalidInput(RequestError):
    """Raised when a value can never be right, whatever the state."""

    exit_code = EXIT_USAGE


class NotFound(RequestError):
    """Raised when the requested object does not exist."""


class DriverNotFound(NotFound, KeyError):
    """Raised when a service has no driver of a name; a KeyError too, because drivers are a mapping."""


class Conflict(RequestError):
    """Raised when an object already exists, or its state does not allow the request."""


class LockTimeout(Conflict):
    """Raised when a lock could not be taken in time; says who holds it."""


class Deadlock(Conflict):
    """Raised when waiting for a lock could never end; `cycle` says who waits for whom."""


class NoCapacity(RequestError):
    """Raised when there is not enough room."""


class WireError(NamedTuple):
    """An error as it travels: its name, then the names of its bases, nearest first; never a class to import."""

    names: tuple[str, ...]
    message: str
    hint: str
    details: dict[str, DetailValue]


def to_plain(value: object, max_depth: int = 64) -> DetailValue:
    """Return the value if msgpack knows it, lists and dictionaries element by element, anything else as text.

    Args:
        value: The value.
        max_depth: How many lists and dictionaries may be nested; what lies deeper is `…`. A caller's argument may
            be a thousand deep, and an error about it must not fail for that.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if max_depth == 0 and isinstance(value, dict | list | tuple | set | frozenset):
        return "…"
    if isinstance(value, dict):
        return {str(key): to_plain(item, max_depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item, max_depth - 1) for item in value]
    return str(value)


_DICT_OF = type.__dict__["__dict__"].__get__
_NAME_OF = type.__dict__["__name__"].__get__


def wire_name(kind: type[OstlerError]) -> str:
    """Return the name under which an error class travels: its top package and its class name."""
    # The slots, and not the attributes: a metaclass may have properties of these names, and they may raise.
    module = _DICT_OF(kind).get("__module__", "")
    return f"{safe_str(module).partition('.')[0]}.{safe_str(_NAME_OF(kind))}"


def check_length(what: str, text: str, limit: int = TEXT_LIMIT) -> str:
    """Return a text that others will be shown.

    Args:
        what: What it is, for the error message: `the reason`.
        text: The text, as somebody gave it.
        limit: The most characters it may have.

    Raises:
        InvalidInput: It has more.
    """
    if len(text) > limit:
        raise InvalidInput(
            f"{what} has {len(text)} characters, the limit is {limit}",
            hint="use fewer",
            size=len(text),
            limit=limit,
        )
    return text


def _bounded_parts(error: OstlerError) -> tuple[str, str, dict[str, DetailValue]]:
    """Return sentence, hint and facts in lengths that can be shown, whatever a plugin has set them to."""
    message, hint = (safe_str(text, MESSAGE_LIMIT) for text in (error.message, error.hint))
    return message, hint, bound_details(error.details)


def to_wire(error: OstlerError) -> WireError:
    """Return the error as it travels: what is too long is cut."""
    message, hint, facts = _bounded_parts(error)
    if isinstance(error, RemoteError):  # passed on unchanged, so that a second hop does not lose the name
        original = str(error.details.get("name", wire_name(RemoteError)))
        return WireError((original, wire_name(RemoteError)), message, hint, facts)
    names = tuple(wire_name(kind) for kind in type(error).__mro__ if issubclass(kind, OstlerError))
    return WireError((error.remote_name, *names) if error.remote_name else names, message, hint, facts)


def shortest_error(error: OstlerError) -> OstlerError:
    """Return an error of the same name with the beginning of its sentence alone, for a wire that takes little."""
    short = type(error).__new__(type(error))
    Exception.__init__(short, "")
    name = error.details.get("name") if isinstance(error, RemoteError) else None
    short.message, short.hint = truncate(safe_str(error.message, MESSAGE_LIMIT), TEXT_LIMIT // 2), ""
    short.details = {} if name is None else {"name": name}
    return short


def from_wire(wire: WireError) -> OstlerError:
    """Return the error that a peer sent, in the nearest class that this process has imported.

    The class is looked up by name among the subclasses of `OstlerError` that exist here; nothing is imported. An error
    whose own name is unknown becomes the nearest known base and carries the original name in `remote_name`, and in
    `details["name"]` unless it has such a detail of its own.
    """
    known = {wire_name(kind): kind for kind in _subclasses(OstlerError)}
    for name in wire.names:
        kind = known.get(name)
        if kind is None or kind is OstlerError:
            continue
        return _restore_error(kind, wire, original=wire.names[0])
    return _restore_error(RemoteError, wire, original=wire.names[0] if wire.names else "unknown")


def _restore_error(kind: type[OstlerError], wire: WireError, original: str) -> OstlerError:
    # Subclasses may have constructors of their own; what travels is what every error has.
    error = kind.__new__(kind)
    Exception.__init__(error, wire.message)
    error.message, error.hint, error.details = wire.message, wire.hint, dict(wire.details)
    if isinstance(error, ConfigurationError):
        lines = wire.message.splitlines()
        sources = error.details.pop("sources", [])
        known = [_source_line(source) for source in sources] if isinstance(sources, list) else []
        known += [None] * (len(lines) - len(known))
        error.problems = [Problem("", line, source) for line, source in zip(lines, known, strict=False)]
    if wire_name(kind) != original:
        error.remote_name = original
        if kind is RemoteError:
            error.details["name"] = original
        else:
            error.details.setdefault("name", original)
    return error


def _source_line(source: DetailValue) -> SourceLine | None:
    match source:
        case [str(text), int(column), int(length)] if column > 0 and length > 0:
            return SourceLine(text, column, length)
    return None


def _subclasses(kind: type[OstlerError]) -> Iterator[type[OstlerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


_REDACTION_MARGIN = 4096
_NO_LIMIT = 2**31
"""Characters that no text of an error has: it is cut where no secret is cut in two."""


def error_line(error: BaseException) -> str:
    """Return one line for any error, not too long: its message for an `OstlerError`, `Type: text` for others.

    It can be sent and written as UTF-8. It never raises, whatever `__str__` or other parts of a plugin's class do.
    """
    text = _redact_and_truncate(safe_str(error, _NO_LIMIT))
    if is_expected(error):
        return text
    name = type_name(error)
    return f"{name}: {text}" if text else name


def is_a(error: object, kinds: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Return whether an error is of a kind, by its type: `isinstance` also asks `__class__`, which may raise."""
    return issubclass(type(error), kinds)


def is_expected(error: object) -> TypeGuard[OstlerError]:
    """Return whether this is an `OstlerError`; unlike `isinstance` it does not ask `__class__`, which may raise."""
    return issubclass(type(error), OstlerError)


def _redact_and_truncate(text: str) -> str:
    """Return a text without secrets, and then not too long: what is cut in two is not found any more."""
    return truncate(redact(SECRETS.redact_and_cut(text, WHY_LIMIT + _REDACTION_MARGIN)), WHY_LIMIT)


def join_words(parts: Iterable[object]) -> str:
    """Return parts as a list for a sentence: `a, b and c`."""
    texts = [str(part) for part in parts]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "none"
