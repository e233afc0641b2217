"""`RpcApi`: a typed client of one manager, with the versions that its calls need."""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, overload

import msgspec

from ostler.errors import UnsupportedVersion
from ostler.messaging.clients.call_methods import CallOptions, StubKeywords, check_fanout
from ostler.messaging.clients.client_adapters import ClientAdapter, adapter_of
from ostler.messaging.interface.versions import AUTO, check_version_cap, evaluate_upgrade
from ostler.messaging.interface.wire_types import find_crashing_union
from ostler.messaging.wire.envelope import FANOUT
from ostler.messaging.wire.request import CAST_FLAGS, FANOUT_FLAGS, CallRequest
from ostler.types import Upgrade
from ostler.version_numbers import is_compatible, parse_version

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_ITERATOR_TYPES = (AsyncIterator, Iterator)


class ApiBinding:
    """Connects an `RpcApi` to its service.

    Args:
        adapter: The client.
        topic: The topic.
        namespace: The namespace, empty for the manager itself.
        version: The version that the API speaks.
        pin: `auto`, or the newest version that may be used.
        options: How calls are made.
    """

    def __init__(
        self, adapter: ClientAdapter, topic: str, namespace: str, version: str, pin: str, options: CallOptions
    ) -> None:
        self.adapter = adapter
        self.topic = topic
        self.namespace = namespace
        self.version = version
        self.pin = pin
        self.options = options
        self.qualified_topic = f"{topic}.{namespace}" if namespace else topic
        self.major = (parse_version(version) or (1, 0))[0]

    def on(self, options: StubKeywords) -> ApiBinding:
        """Return a copy with other options."""
        changed = self.options.updated(options)
        _check_untyped(changed)
        return ApiBinding(self.adapter, self.topic, self.namespace, self.version, self.pin, changed)

    def upgrade(self) -> Upgrade:
        """Return how far the topic is in an upgrade; blocks."""
        return self._apply_pin(self.adapter.get_upgrade(self.qualified_topic, self.major))

    async def aupgrade(self) -> Upgrade:
        """Return how far the topic is in an upgrade; on the loop."""
        return self._apply_pin(await self.adapter.aget_upgrade(self.qualified_topic, self.major))

    def allows(self, version: str, upgrade: Upgrade) -> bool:
        """Return whether what needs a version may be sent."""
        try:
            check_version_cap(upgrade, version, self.qualified_topic, self.options.host or "")
        except UnsupportedVersion:
            return False
        return is_compatible(self.version, version)

    def check_version(self, method: str, required_version: str) -> None:
        """Refuse what is above the cap; blocks, when somebody has to be asked for it.

        Raises:
            UnsupportedVersion: Says who holds the services back.
        """
        if not self._is_always_allowed(method, required_version):
            check_version_cap(
                self.upgrade(), required_version, f"{self.qualified_topic}.{method}", self.options.host or ""
            )

    async def acheck_version(self, method: str, required_version: str) -> None:
        """Refuse what is above the cap; on the loop. See `check`."""
        if not self._is_always_allowed(method, required_version):
            check_version_cap(
                await self.aupgrade(), required_version, f"{self.qualified_topic}.{method}", self.options.host or ""
            )

    def build_request(
        self, method: str, arguments: Mapping[str, Any], result_type: Any, flags: int, required_version: str
    ) -> CallRequest:
        """Return a request."""
        name = f"{self.namespace}.{method}" if self.namespace else method
        options = self.options
        if flags & FANOUT:
            check_fanout(options, self.topic, name)
        return CallRequest(
            self.topic,
            name,
            arguments,
            options.host,
            options.timeout,
            result_type,
            options.on_progress,
            flags,
            required_version,
        )

    def _is_always_allowed(self, method: str, needed: str) -> bool:
        """Return whether it may be sent without a question; the first of a major version is below every cap of that."""
        if self.pin != AUTO:
            check_version_cap(
                evaluate_upgrade(self.qualified_topic, (), self.pin, self.major),
                needed,
                f"{self.qualified_topic}.{method}",
            )
            return True
        return needed.endswith(".0") and self.adapter.pin(self.qualified_topic) == AUTO

    def _apply_pin(self, found: Upgrade) -> Upgrade:
        return found if self.pin == AUTO else evaluate_upgrade(found.topic, found.members, self.pin, self.major)


def _check_untyped(options: CallOptions) -> None:
    if options.type is not None:
        raise TypeError(
            "the option `type` applies to untyped calls only; results of an RpcApi have the types of its stubs"
        )


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
            the lowest version of the running services of the topic.

    Raises:
        TypeError: A stub cannot be read.
    """

    topic: ClassVar[str] = ""
    namespace: ClassVar[str] = ""
    rpc_version: ClassVar[str] = "1.0"
    stubs: ClassVar[Mapping[str, Stub[..., Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Look whether the versions of the stubs are those of the class, or lower."""
        super().__init_subclass__(**options)
        found = {name: inspect.getattr_static(cls, name) for name in dir(cls)}
        cls.stubs = {name: stub for name, stub in found.items() if isinstance(stub, Stub)}
        for name, stub in cls.stubs.items():
            for version in (stub.version, *stub.since.values()):
                if parse_version(version) is None or not is_compatible(cls.rpc_version, version):
                    raise TypeError(f"{cls.__name__}.{name} has version {version}, the class has {cls.rpc_version}")

    def __init__(self, client: Any, *, topic: str = "", pin: str = AUTO) -> None:
        if not (topic or self.topic):
            raise TypeError(f"{type(self).__name__} does not name a topic")
        for stub in self.stubs.values():
            stub.signature  # noqa: B018 - worked out once, and here, where whoever made a mistake sees it
        _check_untyped(client.options)
        self._binding = ApiBinding(
            adapter_of(client), topic or self.topic, self.namespace, self.rpc_version, pin, client.options
        )

    @property
    def binding(self) -> ApiBinding:
        """The connection to the service."""
        return self._binding

    def on(self, **options: Unpack[StubKeywords]) -> Self:
        """Return the same calls with other options; those that are not named stay as they are.

        Args:
            options: `host`, `timeout`, `on_progress`, `retry` and `credit`, as of `Client.on`.

        Raises:
            TypeError: There is no such option; `type` is none here, the stubs say what the results are.
            InvalidInput: An option cannot have this value.
        """
        other = copy.copy(self)
        other._binding = self._binding.on(options)  # noqa: SLF001 - one of our own
        return other

    def can_send_version(self, version: str) -> bool:
        """Return whether what needs a version of this API may be sent now. Blocks for a moment; not on a loop."""
        return self._binding.allows(version, self._binding.upgrade())

    async def acan_send_version(self, version: str) -> bool:
        """Return whether what needs a version of this API may be sent now; on the loop."""
        return self._binding.allows(version, await self._binding.aupgrade())

    def upgrading(self) -> Upgrade:
        """Return whether the services are of several versions now, and who holds callers back. Not on a loop."""
        return self._binding.upgrade()

    async def aupgrading(self) -> Upgrade:
        """Return whether the services are of several versions now, and who holds callers back; on the loop."""
        return await self._binding.aupgrade()


class StubSignature(msgspec.Struct, frozen=True):
    """What a stub says: its arguments, those that must be given, its result (an item, when it streams)."""

    argument_names: frozenset[str]
    required: frozenset[str]
    result_type: Any
    is_streaming: bool
    signature: inspect.Signature
    argument_types: Mapping[str, Any]


class Stub(Generic[P, R]):
    """One method of an `RpcApi`; made by `remote`.

    Args:
        function: Its signature.
        version: The version that brought it.
        since: The version that brought an argument, by name.
    """

    def __init__(self, function: Callable[..., Any], version: str, since: Mapping[str, str]) -> None:
        self.function = function
        self.version = version
        self.since = dict(since)
        self.name = function.__name__
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Refuse a name that an `RpcApi` has itself."""
        if name.startswith("_") or hasattr(RpcApi, name):
            raise TypeError(f"{owner.__name__}.{name}: {name} is reserved by RpcApi or is not a valid method name")
        self.name = name

    @overload
    def __get__(self, api: None, owner: type) -> Self: ...

    @overload
    def __get__(self, api: RpcApi, owner: type) -> BoundStub[P, R]: ...

    def __get__(self, api: RpcApi | None, owner: type) -> Self | BoundStub[P, R]:
        """Return the method, ready to be called."""
        return self if api is None else BoundStub(api.binding, self)

    @cached_property
    def signature(self) -> StubSignature:
        """What the stub says.

        Raises:
            TypeError: It cannot be read.
        """
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except (NameError, TypeError) as error:
            raise TypeError(f"the stub {self.function.__qualname__} cannot be read: {error}") from error
        signature = inspect.signature(self.function)
        parameters = list(signature.parameters.values())[1:]
        for each in parameters:
            if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                raise TypeError(f"the stub {self.function.__qualname__} has an argument that cannot be sent: {each}")
        result = hints.get("return", Any)
        for kind in hints.values():
            if (mixed := find_crashing_union(kind)) is not None:
                raise TypeError(
                    f"the stub {self.function.__qualname__} has a type that msgspec does not support: {mixed}"
                )
        streams = typing.get_origin(result) in _ITERATOR_TYPES
        return StubSignature(
            frozenset(each.name for each in parameters),
            frozenset(each.name for each in parameters if each.default is each.empty),
            typing.get_args(result)[0] if streams else result,
            streams,
            signature.replace(parameters=parameters),
            hints,
        )

    def argument_type(self, name: str) -> Any:
        """Return the type of an argument; anything when the stub does not say."""
        return self.signature.argument_types.get(name, Any)

    def bind(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """Return arguments by name; those left out are left to the service, which may have another default.

        Raises:
            TypeError: They do not fit the stub.
        """
        facts = self.signature
        if args or not (facts.required <= named.keys() <= facts.argument_names):
            return dict(facts.signature.bind(*args, **named).arguments)
        return named

    def required_version(self, arguments: Mapping[str, Any]) -> str:
        """Return the version that a call with these arguments needs."""
        if not self.since:
            return self.version
        versions = [self.version, *(version for name, version in self.since.items() if name in arguments)]
        return max(versions, key=lambda version: parse_version(version) or (0, 0))

    def result_type(self, flags: int) -> Any:
        """Return what the result is decoded to; nothing and anything come as they are."""
        result = self.signature.result_type
        return None if flags or result is Any or result is type(None) else result


def remote(
    *, version: str = "1.0", since: Mapping[str, str] | None = None
) -> Callable[[Callable[Concatenate[Any, P], R]], Stub[P, R]]:
    """Mark a stub of an `RpcApi` as a method of the manager.

    Args:
        version: The `rpc_version` that brought the method.
        since: The `rpc_version` that brought an argument, by its name, for those that came later. A call that does not
            give them needs no more than `version`.
    """

    def mark(stub: Callable[Concatenate[Any, P], R]) -> Stub[P, R]:
        return Stub(stub, version, since or {})

    return mark


class BoundStub(Generic[P, R]):
    """A method of a manager, ready to be called.

    Called plainly it blocks, as `cast` and `fanout` do; what starts with `a` is for the loop. A `Client` blocks, an
    `AsyncClient` does not, a manager's client has both ways.

    Args:
        binding: The connection to the service.
        stub: What its stub says.
    """

    __slots__ = ("_binding", "_stub")

    def __init__(self, binding: ApiBinding, stub: Stub[P, R]) -> None:
        self._binding = binding
        self._stub = stub

    def __call__(self, /, *args: P.args, **arguments: P.kwargs) -> R:
        """Call it and wait for its result, or return its items when it yields; errors as of `Client.call`.

        Raises:
            UnsupportedVersion: It is newer than what may be used now; says who holds the services back.
        """
        result: R = self._send(args, arguments, 0)
        return result

    def cast(self, /, *args: P.args, **arguments: P.kwargs) -> None:
        """Have it run; see `Client.cast`."""
        self._send(args, arguments, CAST_FLAGS)

    def fanout(self, /, *args: P.args, **arguments: P.kwargs) -> int:
        """Have every service on the topic run it; see `Client.fanout`."""
        return int(self._send(args, arguments, FANOUT_FLAGS))

    async def acall(self, /, *args: P.args, **arguments: P.kwargs) -> R:
        """Call it and wait for its result, on the loop."""
        result: R = await self._asend(args, arguments, 0)
        return result

    async def acast(self, /, *args: P.args, **arguments: P.kwargs) -> None:
        """Have it run, on the loop; see `AsyncClient.cast`."""
        await self._asend(args, arguments, CAST_FLAGS)

    async def afanout(self, /, *args: P.args, **arguments: P.kwargs) -> int:
        """Have every service on the topic run it, on the loop; see `AsyncClient.fanout`."""
        return int(await self._asend(args, arguments, FANOUT_FLAGS))

    async def astream(self: BoundStub[P, Iterator[T]], /, *args: P.args, **arguments: P.kwargs) -> AsyncIterator[T]:
        """Return the items of a method that yields, on the loop; see `AsyncClient.stream`."""
        line, stub = self._binding, self._stub
        given = stub.bind(args, arguments)
        needed = stub.required_version(given)
        await line.acheck_version(stub.name, needed)
        found: AsyncIterator[T] = line.adapter.astream(
            line.build_request(stub.name, given, stub.result_type(0), 0, needed), line.options.credit
        )
        return found

    def _send(self, args: tuple[Any, ...], named: dict[str, Any], flags: int) -> Any:
        line, stub = self._binding, self._stub
        arguments = stub.bind(args, named)
        needed = stub.required_version(arguments)
        line.check_version(stub.name, needed)
        ask = line.build_request(stub.name, arguments, stub.result_type(flags), flags, needed)
        if stub.signature.is_streaming and not flags:
            return line.adapter.stream(ask, line.options.credit)
        return line.adapter.send_request(ask, line.options.retry)

    async def _asend(self, args: tuple[Any, ...], named: dict[str, Any], flags: int) -> Any:
        line, stub = self._binding, self._stub
        arguments = stub.bind(args, named)
        needed = stub.required_version(arguments)
        await line.acheck_version(stub.name, needed)
        return await line.adapter.asend_request(
            line.build_request(stub.name, arguments, stub.result_type(flags), flags, needed), line.options.retry
        )
