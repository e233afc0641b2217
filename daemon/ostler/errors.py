"""Every error that Ostler raises, and how errors travel by name.

An error says what happened, to which plugin, service, driver or method, and what to do next. Its facts are attributes
(`error.topic` is `error.facts["topic"]`), its sentence is `error.message`, its advice `error.hint`. Exit codes are
those of the command.

    OstlerError
    ├── ConfigurationError            78  the configuration is wrong; carries every problem with its place
    │   └── UntrustedOwner                files belong to, or can be written by, neither root nor whoever runs this
    ├── PluginError                       a plugin could not be found, imported or registered
    │   └── ContractError                 a manager or driver does not fulfil what its base class demands
    ├── ServiceError                      a service cannot be built, started or stopped
    ├── DriverError                       a driver failed
    │   ├── DriverNotReady                it is still initialising, or waits for its next try
    │   ├── DriverStuck                   a call into it has outlived its time budget
    │   └── FeatureNotSupported           it does not offer that optional feature
    ├── StoreError                        the database
    │   ├── StoreUnavailable              it cannot be reached now (locked, full, read-only)
    │   ├── StoreInUse                    another daemon owns this state
    │   ├── StoreCorrupt                  it is damaged
    │   └── SchemaTooNew                  it was written by a newer Ostler
    ├── MessagingError                    a call, cast, fanout or event
    │   ├── NotRunning                 3  nobody listens at the address
    │   ├── ConnectionLost                the server died or stopped beating while it worked
    │   ├── TargetNotFound                no service on that topic, host or method
    │   ├── NotExposed                    the method exists but is not offered
    │   ├── WrongPattern               2  a method that yields was called, or another one streamed
    │   ├── InvalidArguments           2  which argument, what was expected, what came
    │   ├── UnsupportedVersion            too old or too new, by name
    │   ├── NotPermitted               4  which role is missing
    │   ├── DeadlineExceeded              no answer in time
    │   ├── CallCancelled                 the caller took it back
    │   ├── Busy                          a queue is full; come again later
    │   ├── Draining                      the service is being stopped
    │   ├── ServiceDisabled               an operator has disabled it: it takes no new work that is placed by choice
    │   ├── AlreadyDone                   a request that came again was done, and its answer is not kept any more
    │   ├── MessageTooLarge               above the size limit
    │   ├── EncodeFailed                  a value that cannot go over the wire
    │   ├── BadEnvelope                   bytes that are no message of ours
    │   ├── InternalError                 the method raised something it does not declare
    │   └── RemoteError                   an error this client does not know, with its name and text
    └── RequestError                      what was asked for cannot be done (for plugins to derive from)
        ├── InvalidInput               2  a value that can never be right
        ├── NotFound                      no such thing
        │   └── DriverNotFound            a service has no such driver; a KeyError too
        ├── Conflict                      it is there already, or its state forbids it
        └── NoCapacity                    not enough room
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeGuard, TypeVar

from ostler.bounds import MESSAGE_LIMIT, TEXT_LIMIT, WHY_LIMIT, Fact, bounded_facts, cut, text_of, type_name_of
from ostler.redaction import SECRETS, redact

E = TypeVar("E")

WELL = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
NOT_PERMITTED = 4
CONFIGURATION = 78


class OstlerError(Exception):
    """The base of all errors of Ostler and of its plugins.

    Args:
        message: One sentence: what happened, and to whom. No final full stop is needed.
        hint: What to do next, as a sentence of its own.
        facts: What the error is about, for programs; values that msgpack knows, anything else is kept as text. They are
            bounded in number, length and depth; see `ostler.bounds`.
    """

    exit_code: ClassVar[int] = FAILED

    def __init__(self, message: str, *, hint: str = "", **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts: dict[str, Fact] = bounded_facts(facts)

    def __getattr__(self, name: str) -> Any:
        """Return a fact: `error.retry_after`. What an error has of its own (`message`, `hint`, `args`) goes first.

        Raises:
            AttributeError: It has no such fact.
        """
        # Not `self.facts`: an error that is being copied has none yet, and would ask itself for ever.
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        if name in _EVERY_ERROR_HAS:  # a class of a plugin whose constructor does not call this one
            return _EVERY_ERROR_HAS[name](self)
        raise AttributeError(f"{type(self).__name__} has no attribute and no fact {name!r}")

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


_EVERY_ERROR_HAS: dict[str, Callable[[OstlerError], Any]] = {
    "message": lambda error: " ".join(map(text_of, error.args)) or type_name_of(error),
    "hint": lambda _: "",
    "facts": lambda _: {},
}


class Problem(NamedTuple):
    """One thing that is wrong in a configuration: where (`file:line:column`, may be empty) and what."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class ConfigurationError(OstlerError):
    """Raised when a configuration cannot be used; `problems` holds everything that is wrong with it."""

    exit_code = CONFIGURATION

    def __init__(self, problems: Sequence[Problem] | str, *, hint: str = "", **facts: object) -> None:
        listed = [Problem("", problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(map(str, listed)), hint=hint, **facts)
        self.problems = listed


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


class DriverStuck(DriverError):
    """Raised when a call into a driver has outlived its time budget, and for each call made while it is stuck."""


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


class NotRunning(MessagingError):
    """Raised when nobody listens at the address: the daemon is not running."""

    exit_code = NOT_RUNNING


class ConnectionLost(MessagingError):
    """Raised when the server died, or stopped beating, while the call was under way."""


class TargetNotFound(MessagingError):
    """Raised when no service answers to the topic, host or method."""


class NotExposed(MessagingError):
    """Raised when a method exists on the manager but is not marked `@exposed`."""


class WrongPattern(MessagingError):
    """Raised when a method that yields is called or cast, and when one that does not is asked for a stream."""

    exit_code = USAGE


class InvalidArguments(MessagingError):
    """Raised when arguments do not fit a method: which one, what was expected, what came."""

    exit_code = USAGE


class UnsupportedVersion(MessagingError):
    """Raised when a method is asked for in a version that this service does not speak."""


class NotPermitted(MessagingError):
    """Raised when the caller lacks the role that a method asks for; says which."""

    exit_code = NOT_PERMITTED


class DeadlineExceeded(MessagingError):
    """Raised when a call was not answered before its deadline."""


class CallCancelled(MessagingError):
    """Raised in a method, and to its caller, when the caller took the call back."""


class Busy(MessagingError):
    """Raised when a queue is full; `facts["retry_after"]` says in how many seconds to come again."""


class Draining(MessagingError):
    """Raised when a service is being stopped and takes no new work."""


class ServiceDisabled(MessagingError):
    """Raised when an operator has disabled a service: it takes no new work that is placed there by choice."""


class AlreadyDone(MessagingError):
    """Raised for a request that came again: it was done, but its answer is not kept any more."""


class MessageTooLarge(MessagingError):
    """Raised when a message is above the size limit."""


class EncodeFailed(MessagingError):
    """Raised when a value cannot go over the wire."""


class BadEnvelope(MessagingError):
    """Raised when bytes are no message of ours; `facts["reason"]` is one word that is counted."""


class InternalError(MessagingError):
    """Raised when a method failed with something that is no `OstlerError`; its traceback is in the server's log."""


class RemoteError(MessagingError):
    """Raised for an error that this client has no class for; `facts["name"]` is its name on the server."""


class RequestError(OstlerError):
    """Raised when what was asked for cannot be done; the base for what plugins refuse."""


class InvalidInput(RequestError):
    """Raised when a value can never be right, whatever the state."""

    exit_code = USAGE


class NotFound(RequestError):
    """Raised when there is no such thing."""


class DriverNotFound(NotFound, KeyError):
    """Raised when a service has no driver of a name; a KeyError too, because drivers are a mapping."""


class Conflict(RequestError):
    """Raised when a thing is there already, or is in a state that forbids what was asked."""


class NoCapacity(RequestError):
    """Raised when there is not enough room."""


class WireError(NamedTuple):
    """An error as it travels: its name, then the names of its bases, nearest first; never a class to import."""

    names: tuple[str, ...]
    message: str
    hint: str
    facts: dict[str, Fact]


def plain(value: object, deepest: int = 64) -> Fact:
    """Return the value if msgpack knows it, lists and dictionaries element by element, anything else as text.

    Args:
        value: The value.
        deepest: How many lists and dictionaries may lie in each other; what lies deeper is `…`. A caller's argument may
            be a thousand deep, and an error about it must not fail for that.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if deepest == 0 and isinstance(value, dict | list | tuple | set | frozenset):
        return "…"
    if isinstance(value, dict):
        return {str(key): plain(item, deepest - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, deepest - 1) for item in value]
    return str(value)


_DICT_OF = type.__dict__["__dict__"].__get__
_NAME_OF = type.__dict__["__name__"].__get__


def wire_name(kind: type[OstlerError]) -> str:
    """Return the name under which an error class travels: its top package and its class name."""
    # The slots, and not the attributes: a metaclass may have properties of these names, and they may raise.
    module = _DICT_OF(kind).get("__module__", "")
    return f"{text_of(module).partition('.')[0]}.{text_of(_NAME_OF(kind))}"


def check_length(what: str, text: str, most: int = TEXT_LIMIT) -> str:
    """Return a text that others will be shown.

    Args:
        what: What it is, for the error: `the reason`.
        text: The text, as somebody gave it.
        most: The most characters it may have.

    Raises:
        InvalidInput: It has more.
    """
    if len(text) > most:
        raise InvalidInput(
            f"{what} has {len(text)} characters, the limit is {most}",
            hint="say it in fewer",
            size=len(text),
            limit=most,
        )
    return text


def _shown(error: OstlerError) -> tuple[str, str, dict[str, Fact]]:
    """Return sentence, hint and facts in lengths that can be shown, whatever a plugin has set them to."""
    message, hint = (text_of(text, MESSAGE_LIMIT) for text in (error.message, error.hint))
    return message, hint, bounded_facts(error.facts)


def to_wire(error: OstlerError) -> WireError:
    """Return the error as it travels: what is too long is cut."""
    message, hint, facts = _shown(error)
    if isinstance(error, RemoteError):  # passed on unchanged, so that a second hop does not lose the name
        original = str(error.facts.get("name", wire_name(RemoteError)))
        return WireError((original, wire_name(RemoteError)), message, hint, facts)
    names = tuple(wire_name(kind) for kind in type(error).__mro__ if issubclass(kind, OstlerError))
    return WireError(names, message, hint, facts)


def shortest(error: OstlerError) -> OstlerError:
    """Return an error of the same name with the beginning of its sentence alone, for a wire that takes little."""
    short = type(error).__new__(type(error))
    Exception.__init__(short, "")
    name = error.facts.get("name") if isinstance(error, RemoteError) else None
    short.message, short.hint = cut(text_of(error.message, MESSAGE_LIMIT), TEXT_LIMIT // 2), ""
    short.facts = {} if name is None else {"name": name}
    return short


def from_wire(wire: WireError) -> OstlerError:
    """Return the error that a peer sent, in the nearest class that this process has imported.

    The class is looked up by name among the subclasses of `OstlerError` that exist here; nothing is imported. An error
    whose own name is unknown becomes the nearest known base and carries the original name in `facts["name"]`.
    """
    known = {wire_name(kind): kind for kind in _tree(OstlerError)}
    for name in wire.names:
        kind = known.get(name)
        if kind is None or kind is OstlerError:
            continue
        return _restore(kind, wire, original=wire.names[0])
    return _restore(RemoteError, wire, original=wire.names[0] if wire.names else "unknown")


def _restore(kind: type[OstlerError], wire: WireError, original: str) -> OstlerError:
    # Subclasses may have constructors of their own; what travels is what every error has.
    error = kind.__new__(kind)
    Exception.__init__(error, wire.message)
    error.message, error.hint, error.facts = wire.message, wire.hint, dict(wire.facts)
    if isinstance(error, ConfigurationError):
        error.problems = [Problem("", line) for line in wire.message.splitlines()]
    if wire_name(kind) != original:
        error.facts["name"] = original
    return error


def _tree(kind: type[OstlerError]) -> Iterator[type[OstlerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


_MARGIN = 4096
_WHOLE = 2**31
"""Characters that no text of an error has: it is cut where no secret is cut in two."""


def describe(error: BaseException) -> str:
    """Return one line for any error, not too long: its sentence for ours, `Type: text` for others.

    It can be sent and written as UTF-8. It never raises, whatever `__str__` or other parts of a plugin's class do.
    """
    text = _cut_redacted(text_of(error, _WHOLE))
    if is_expected(error):
        return text
    name = type_name_of(error)
    return f"{name}: {text}" if text else name


def is_a(error: object, kinds: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Return whether an error is of a kind, by its type: `isinstance` also asks `__class__`, which may raise."""
    return issubclass(type(error), kinds)


def is_expected(error: object) -> TypeGuard[OstlerError]:
    """Return whether this is one of our errors; unlike `isinstance` it does not ask `__class__`, which may raise."""
    return issubclass(type(error), OstlerError)


def _cut_redacted(text: str) -> str:
    """Return a text without secrets, and then not too long: what is cut in two is not found any more."""
    return cut(redact(SECRETS.cut(text, WHY_LIMIT + _MARGIN)), WHY_LIMIT)


def joined(parts: Iterable[object]) -> str:
    """Return parts as a list for a sentence: `a, b and c`."""
    texts = [str(part) for part in parts]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "none"
