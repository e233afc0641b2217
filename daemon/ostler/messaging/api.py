"""`RpcApi`: a typed client of one manager, which says what it needs and is held to what the services understand."""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, overload

import msgspec

from ostler.errors import UnsupportedVersion
from ostler.messaging.call_options import CallOptions, StubKeywords, check_fanout
from ostler.messaging.envelope import FANOUT
from ostler.messaging.rpc.core import FLAGS_OF_CAST, FLAGS_OF_FANOUT, Ask
from ostler.messaging.rpc.wire_types import crashing
from ostler.messaging.versions import AUTO, check_cap, judge
from ostler.messaging.views import View, view_of
from ostler.types import Upgrade
from ostler.version_numbers import is_compatible, parse_version

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_YIELD = (AsyncIterator, Iterator)


class Line:
    """The way from an `RpcApi` to its service.

    Args:
        view: The client.
        topic: The topic.
        namespace: The namespace, empty for the manager itself.
        version: The version that the API speaks.
        pin: `auto`, or the newest version that may be used.
        options: How calls are made.
    """

    def __init__(self, view: View, topic: str, namespace: str, version: str, pin: str, options: CallOptions) -> None:
        self.view = view
        self.topic = topic
        self.namespace = namespace
        self.version = version
        self.pin = pin
        self.options = options
        self.spoken = f"{topic}.{namespace}" if namespace else topic
        self.major = (parse_version(version) or (1, 0))[0]

    def on(self, options: StubKeywords) -> Line:
        """Return the same way with other options."""
        changed = self.options.updated(options)
        _check_untyped(changed)
        return Line(self.view, self.topic, self.namespace, self.version, self.pin, changed)

    def upgrade(self) -> Upgrade:
        """Return how far the topic is in an upgrade; blocks."""
        return self._pinned(self.view.of(self.spoken, self.major))

    async def aupgrade(self) -> Upgrade:
        """Return how far the topic is in an upgrade; on the loop."""
        return self._pinned(await self.view.aof(self.spoken, self.major))

    def may(self, version: str, upgrade: Upgrade) -> bool:
        """Return whether what needs a version may be sent."""
        try:
            check_cap(upgrade, version, self.spoken, self.options.host or "")
        except UnsupportedVersion:
            return False
        return is_compatible(self.version, version)

    def check(self, method: str, needed: str) -> None:
        """Refuse what is above the cap; blocks, when somebody has to be asked for it.

        Raises:
            UnsupportedVersion: Says who holds the services back.
        """
        if not self._surely(method, needed):
            check_cap(self.upgrade(), needed, f"{self.spoken}.{method}", self.options.host or "")

    async def acheck(self, method: str, needed: str) -> None:
        """Refuse what is above the cap; on the loop. See `check`."""
        if not self._surely(method, needed):
            check_cap(await self.aupgrade(), needed, f"{self.spoken}.{method}", self.options.host or "")

    def request(self, method: str, arguments: Mapping[str, Any], kind: Any, flags: int, needed: str) -> Ask:
        """Return a request."""
        name = f"{self.namespace}.{method}" if self.namespace else method
        options = self.options
        if flags & FANOUT:
            check_fanout(options, self.topic, name)
        return Ask(self.topic, name, arguments, options.host, options.timeout, kind, options.on_progress, flags, needed)

    def _surely(self, method: str, needed: str) -> bool:
        """Return whether it may be sent without a question; the first of a major version is below every cap of that."""
        if self.pin != AUTO:
            check_cap(judge(self.spoken, (), self.pin, self.major), needed, f"{self.spoken}.{method}")
            return True
        return needed.endswith(".0") and self.view.pin(self.spoken) == AUTO

    def _pinned(self, found: Upgrade) -> Upgrade:
        return found if self.pin == AUTO else judge(found.topic, found.members, self.pin, self.major)


def _check_untyped(options: CallOptions) -> None:
    if options.type is not None:
        raise TypeError("the option type is for untyped calls; results of an RpcApi have the types of its stubs")


class RpcApi:
    """The calls of one manager, as its author offers them to others. Derive from it, and write each method as a stub.

        class VolumeApi(RpcApi):
            topic = "volume"
            rpc_version = "1.1"

            @remote()
            def get_volume(self, name: str) -> Volume: ...

            @remote(version="1.1")
            def rename_volume(self, name: str, new: str) -> Volume: ...

        volumes = VolumeApi(client)
        volume = volumes.get_volume(name="a")               # Client, or a manager's `self.client` in a thread
        volume = await volumes.get_volume.acall(name="a")   # AsyncClient, or `self.client` on the loop
        volumes.on(host="node2", timeout=5).get_volume.cast(name="a")

    Arguments are those of the stubs, and results come back as their types. Each request carries the version that it
    needs, so that a service too old for it refuses it by name; what is above the cap is not even sent.

    Args:
        client: What the calls go through: a `Client`, an `AsyncClient` or a manager's `self.client`, or a view of one
            of these, whose options the calls then have.
        topic: The topic, where it is not that of the class.
        pin: The newest version that may be used. `auto` is what the daemon says: the pin in its configuration, or else
            the lowest version that the living services of the topic speak.

    Raises:
        TypeError: A stub cannot be read.
    """

    topic: ClassVar[str] = ""
    namespace: ClassVar[str] = ""
    rpc_version: ClassVar[str] = "1.0"
    stubs: ClassVar[Mapping[str, Remote[..., Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Look whether the versions of the stubs are those of the class, or lower."""
        super().__init_subclass__(**options)
        found = {name: inspect.getattr_static(cls, name) for name in dir(cls)}
        cls.stubs = {name: stub for name, stub in found.items() if isinstance(stub, Remote)}
        for name, stub in cls.stubs.items():
            for version in (stub.version, *stub.since.values()):
                if parse_version(version) is None or not is_compatible(cls.rpc_version, version):
                    raise TypeError(f"{cls.__name__}.{name} is of version {version}, the class of {cls.rpc_version}")

    def __init__(self, client: Any, *, topic: str = "", pin: str = AUTO) -> None:
        if not (topic or self.topic):
            raise TypeError(f"{type(self).__name__} names no topic")
        for stub in self.stubs.values():
            stub.facts  # noqa: B018 - worked out once, and here, where whoever made a mistake sees it
        _check_untyped(client.options)
        self._line = Line(view_of(client), topic or self.topic, self.namespace, self.rpc_version, pin, client.options)

    @property
    def line(self) -> Line:
        """The way to the service."""
        return self._line

    def on(self, **options: Unpack[StubKeywords]) -> Self:
        """Return the same calls with other options; those that are not named stay as they are.

        Args:
            options: `host`, `timeout`, `on_progress`, `retry` and `credit`, as of `Client.on`.

        Raises:
            TypeError: There is no such option; `type` is none here, the stubs say what the results are.
            InvalidInput: An option cannot have this value.
        """
        other = copy.copy(self)
        other._line = self._line.on(options)  # noqa: SLF001 - one of our own
        return other

    def can_send_version(self, version: str) -> bool:
        """Return whether what needs a version of this API may be sent now. Blocks for a moment; not on a loop."""
        return self._line.may(version, self._line.upgrade())

    async def acan_send_version(self, version: str) -> bool:
        """Return whether what needs a version of this API may be sent now; on the loop."""
        return self._line.may(version, await self._line.aupgrade())

    def upgrading(self) -> Upgrade:
        """Return whether the services are of several versions now, and who holds callers back. Not on a loop."""
        return self._line.upgrade()

    async def aupgrading(self) -> Upgrade:
        """Return whether the services are of several versions now, and who holds callers back; on the loop."""
        return await self._line.aupgrade()


class Facts(msgspec.Struct, frozen=True):
    """What a stub says: its arguments, those that must be given, its result (an item, when it streams)."""

    names: frozenset[str]
    required: frozenset[str]
    result: Any
    streams: bool
    signature: inspect.Signature
    types: Mapping[str, Any]


class Remote(Generic[P, R]):
    """One method of an `RpcApi`; made by `remote`.

    Args:
        stub: Its signature.
        version: The version that brought it.
        since: The version that brought an argument, by name.
    """

    def __init__(self, stub: Callable[..., Any], version: str, since: Mapping[str, str]) -> None:
        self.stub = stub
        self.version = version
        self.since = dict(since)
        self.name = stub.__name__
        self.__doc__ = stub.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Refuse a name that an `RpcApi` has itself."""
        if name.startswith("_") or hasattr(RpcApi, name):
            raise TypeError(f"{owner.__name__}.{name}: {name} is a name of RpcApi itself, or none for a method")
        self.name = name

    @overload
    def __get__(self, api: None, owner: type) -> Self: ...

    @overload
    def __get__(self, api: RpcApi, owner: type) -> RemoteMethod[P, R]: ...

    def __get__(self, api: RpcApi | None, owner: type) -> Self | RemoteMethod[P, R]:
        """Return the method, ready to be called."""
        return self if api is None else RemoteMethod(api.line, self)

    @cached_property
    def facts(self) -> Facts:
        """What the stub says.

        Raises:
            TypeError: It cannot be read.
        """
        try:
            hints = typing.get_type_hints(self.stub, include_extras=True)
        except (NameError, TypeError) as error:
            raise TypeError(f"the stub {self.stub.__qualname__} cannot be read: {error}") from error
        signature = inspect.signature(self.stub)
        parameters = list(signature.parameters.values())[1:]
        for each in parameters:
            if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                raise TypeError(f"the stub {self.stub.__qualname__} has an argument that cannot be sent: {each}")
        result = hints.get("return", Any)
        for kind in hints.values():
            if (mixed := crashing(kind)) is not None:
                raise TypeError(f"the stub {self.stub.__qualname__} has a type that msgspec cannot do: {mixed}")
        streams = typing.get_origin(result) in _YIELD
        return Facts(
            frozenset(each.name for each in parameters),
            frozenset(each.name for each in parameters if each.default is each.empty),
            typing.get_args(result)[0] if streams else result,
            streams,
            signature.replace(parameters=parameters),
            hints,
        )

    def argument_type(self, name: str) -> Any:
        """Return the type of an argument; anything when the stub does not say."""
        return self.facts.types.get(name, Any)

    def bind(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """Return arguments by name; those left out are left to the service, which may have another default.

        Raises:
            TypeError: They do not fit the stub.
        """
        facts = self.facts
        if args or not (facts.required <= named.keys() <= facts.names):
            return dict(facts.signature.bind(*args, **named).arguments)
        return named

    def needed(self, arguments: Mapping[str, Any]) -> str:
        """Return the version that a call with these arguments needs."""
        if not self.since:
            return self.version
        versions = [self.version, *(version for name, version in self.since.items() if name in arguments)]
        return max(versions, key=lambda version: parse_version(version) or (0, 0))

    def kind(self, flags: int) -> Any:
        """Return what the result is decoded to; nothing and anything come as they are."""
        result = self.facts.result
        return None if flags or result is Any or result is type(None) else result


def remote(
    *, version: str = "1.0", since: Mapping[str, str] | None = None
) -> Callable[[Callable[Concatenate[Any, P], R]], Remote[P, R]]:
    """Mark a stub of an `RpcApi` as a method of the manager.

    Args:
        version: The `rpc_version` that brought the method.
        since: The `rpc_version` that brought an argument, by its name, for those that came later. A call that does not
            give them needs no more than `version`.
    """

    def mark(stub: Callable[Concatenate[Any, P], R]) -> Remote[P, R]:
        return Remote(stub, version, since or {})

    return mark


class RemoteMethod(Generic[P, R]):
    """A method of a manager, ready to be called.

    Called plainly it blocks, as `cast` and `fanout` do; what starts with `a` is for the loop. A `Client` blocks, an
    `AsyncClient` does not, a manager's client has both ways.

    Args:
        line: The way to the service.
        remote: What its stub says.
    """

    __slots__ = ("_line", "_remote")

    def __init__(self, line: Line, remote: Remote[P, R]) -> None:
        self._line = line
        self._remote = remote

    def __call__(self, /, *args: P.args, **arguments: P.kwargs) -> R:
        """Call it and wait for its result, or return its items when it yields; errors as of `Client.call`.

        Raises:
            UnsupportedVersion: It is newer than what may be used now; says who holds the services back.
        """
        result: R = self._send(args, arguments, 0)
        return result

    def cast(self, /, *args: P.args, **arguments: P.kwargs) -> None:
        """Have it run; see `Client.cast`."""
        self._send(args, arguments, FLAGS_OF_CAST)

    def fanout(self, /, *args: P.args, **arguments: P.kwargs) -> int:
        """Have every service on the topic run it; see `Client.fanout`."""
        return int(self._send(args, arguments, FLAGS_OF_FANOUT))

    async def acall(self, /, *args: P.args, **arguments: P.kwargs) -> R:
        """Call it and wait for its result, on the loop."""
        result: R = await self._asend(args, arguments, 0)
        return result

    async def acast(self, /, *args: P.args, **arguments: P.kwargs) -> None:
        """Have it run, on the loop; see `AsyncClient.cast`."""
        await self._asend(args, arguments, FLAGS_OF_CAST)

    async def afanout(self, /, *args: P.args, **arguments: P.kwargs) -> int:
        """Have every service on the topic run it, on the loop; see `AsyncClient.fanout`."""
        return int(await self._asend(args, arguments, FLAGS_OF_FANOUT))

    async def astream(self: RemoteMethod[P, Iterator[T]], /, *args: P.args, **arguments: P.kwargs) -> AsyncIterator[T]:
        """Return the items of a method that yields, on the loop; see `AsyncClient.stream`."""
        line, stub = self._line, self._remote
        given = stub.bind(args, arguments)
        needed = stub.needed(given)
        await line.acheck(stub.name, needed)
        found: AsyncIterator[T] = line.view.astream(
            line.request(stub.name, given, stub.kind(0), 0, needed), line.options.credit
        )
        return found

    def _send(self, args: tuple[Any, ...], named: dict[str, Any], flags: int) -> Any:
        line, stub = self._line, self._remote
        arguments = stub.bind(args, named)
        needed = stub.needed(arguments)
        line.check(stub.name, needed)
        ask = line.request(stub.name, arguments, stub.kind(flags), flags, needed)
        if stub.facts.streams and not flags:
            return line.view.stream(ask, line.options.credit)
        return line.view.ask(ask, line.options.retry)

    async def _asend(self, args: tuple[Any, ...], named: dict[str, Any], flags: int) -> Any:
        line, stub = self._line, self._remote
        arguments = stub.bind(args, named)
        needed = stub.needed(arguments)
        await line.acheck(stub.name, needed)
        return await line.view.aask(
            line.request(stub.name, arguments, stub.kind(flags), flags, needed), line.options.retry
        )
