"""Typed clients, over every kind of client."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import msgspec
import pytest

from ostler import AsyncClient, Client, InvalidInput, Manager, RpcApi, exposed, remote
from ostler.clock import FakeClock
from ostler.errors import InvalidArguments, MethodNotFound, NotPermitted, ServiceNotFound, UnsupportedVersion
from ostler.messaging import Context
from ostler.messaging.clients.call_methods import CallOptions
from ostler.messaging.clients.client_adapters import adapter_of
from ostler.messaging.clients.retry import Retry
from ostler.store import ServiceRecords, ServiceReport
from ostler.testing import host
from ostler.types import ServiceState, Upgrade

# private: _started_runtime, _transport: of the public test host, which need not have more members for this

CONFIG = '[services.lamp]\nmanager = "lamp"\n'


class Lamp(msgspec.Struct):
    name: str
    lit: bool = False


class LampAdmin:
    rpc_version = "2.1"

    def __init__(self, manager):
        self.manager = manager

    @exposed(role="admin", version="2.1")
    async def reset(self, ctx: Context) -> int:
        return len(self.manager.asked)


class LampManager(Manager):
    rpc_version = "1.1"
    namespaces = {"admin": LampAdmin}

    def __init__(self, environment):
        super().__init__(environment)
        self.asked = []

    @exposed(role="viewer")
    def switch(self, ctx: Context, lamp: Lamp, on: bool = True, slowly: bool = False) -> Lamp:
        self.asked.append((lamp.name, on, slowly))
        return Lamp(lamp.name, on)

    @exposed(role="viewer", version="1.1")
    async def dim(self, ctx: Context, name: str) -> None:
        self.asked.append((name, "dim"))

    @exposed(role="viewer")
    async def names(self, ctx: Context, count: int) -> AsyncIterator[Lamp]:
        for number in range(count):
            yield Lamp(str(number))

    @exposed(role="viewer")
    def ask_itself(self, ctx: Context) -> list[str]:
        api = LampApi(self.client)
        assert [lamp.name for lamp in api.names(1)] == ["0"]
        assert api.on(retry=Retry()).switch(Lamp("again")).name == "again"
        return [api.switch(Lamp("inside")).name, str(api.upgrading().cap)]

    @exposed(role="viewer")
    async def ask_itself_on_the_loop(self, ctx: Context) -> list[str]:
        api = LampApi(self.client)
        await api.dim.acast(name="x")
        assert [lamp.name async for lamp in await api.names.astream(1)] == ["0"]
        return [(await api.switch.acall(Lamp("inside"))).name, str((await api.aupgrading()).cap)]


class LampApi(RpcApi):
    topic = "lamp"
    rpc_version = "1.2"

    @remote(since={"slowly": "1.1", "colour": "1.2"})
    def switch(self, lamp: Lamp, on: bool = True, *, slowly: bool = False, colour: str = "") -> Lamp:
        """Switch a lamp."""

    @remote(version="1.1")
    def dim(self, name: str) -> None: ...

    @remote(version="1.2")
    def blink(self, name: str) -> None: ...

    @remote()
    def names(self, count: int) -> Iterator[Lamp]: ...

    @remote()
    def missing(self) -> int: ...


class LampAdminApi(RpcApi):
    topic = "lamp"
    namespace = "admin"
    rpc_version = "2.2"

    @remote(version="2.1")
    def reset(self) -> int: ...

    @remote(version="2.2")
    def burn(self) -> int: ...


@pytest.fixture
def running():
    with host(managers={"lamp": LampManager}, config=CONFIG) as h:
        yield h


@pytest.fixture
def client(running):
    with running.client() as client:
        yield client


def on_loop(running, test):
    async def main():
        async with AsyncClient(transport=running._transport) as client:
            await test(LampApi(client))

    running.run(main())


def speak(running, where, version, topic="lamp"):
    """Have a service of another host in the table."""
    records = ServiceRecords(running.store, running.clock, where)
    records.register(topic, "lamp", version)
    records.save_reports([ServiceReport(topic, ServiceState.UP)])
    running._started_runtime().upgrades.invalidate()


def test_a_call_takes_and_returns_the_types_of_the_stub(running, client):
    lamps = LampApi(client)
    assert lamps.switch(Lamp("desk")) == Lamp("desk", lit=True)
    assert lamps.switch(lamp=Lamp("desk"), on=False) == Lamp("desk")
    assert running.manager("lamp").asked == [("desk", True, False), ("desk", False, False)]
    assert lamps.dim("desk") is None
    assert LampApi.switch.__doc__ == "Switch a lamp."


def test_the_same_class_serves_a_loop(running):
    async def test(lamps):
        assert await lamps.switch.acall(Lamp("desk"), on=False) == Lamp("desk")
        await lamps.dim.acast(name="desk")
        assert await lamps.dim.afanout("desk") == 1
        assert [lamp async for lamp in await lamps.names.astream(2)] == [Lamp("0"), Lamp("1")]
        assert (await lamps.aupgrading()).cap == "1.1"
        assert await lamps.acan_send_version("1.1")
        with pytest.raises(RuntimeError, match="this client is asynchronous and cannot block; use `acall`"):
            lamps.switch(Lamp("desk"))
        with pytest.raises(RuntimeError, match="use `acan_send_version`"):
            lamps.can_send_version("1.1")
        with pytest.raises(RuntimeError, match="use `astream`"):
            lamps.names(2)

    on_loop(running, test)


def test_a_manager_calls_others_through_it_from_a_thread_and_on_the_loop(client):
    assert client.call("lamp", "ask_itself") == ["inside", "1.1"]
    assert client.call("lamp", "ask_itself_on_the_loop") == ["inside", "1.1"]


def test_casts_fanouts_and_streams_go_the_same_way(running, client):
    lamps = LampApi(client)
    lamps.dim.cast("a")
    assert lamps.dim.fanout(name="b") == 1
    assert running.manager("lamp").asked == [("a", "dim"), ("b", "dim")]
    with lamps.names(2) as items:
        assert list(items) == [Lamp("0"), Lamp("1")]


def test_a_retry_policy_goes_with_the_calls_of_one_way(running, client):
    lamps = LampApi(client).on(retry=Retry(attempts=2), timeout=5)
    assert lamps.switch(Lamp("desk")).lit
    assert lamps.binding.options.retry.attempts == 2

    async def test(lamps):
        assert (await lamps.on(retry=Retry(attempts=2)).switch.acall(Lamp("desk"))).lit

    on_loop(running, test)


def test_a_client_that_blocks_refuses_what_is_for_the_loop(client):
    lamps = LampApi(client)
    for work in (lamps.dim.acall("a"), lamps.dim.acast("a"), lamps.names.astream(1), lamps.aupgrading()):
        with pytest.raises(RuntimeError, match="this client is blocking and cannot be awaited"):
            asyncio.run(work)


def test_arguments_that_do_not_fit_the_stub_are_refused_here(client):
    lamps = LampApi(client)
    for args, named in (((), {}), ((Lamp("a"), True, True), {}), ((), {"name": "a"}), ((Lamp("a"),), {"other": 1})):
        with pytest.raises(TypeError):
            lamps.switch(*args, **named)
    with pytest.raises(InvalidArguments, match=r"argument 'lamp' of lamp\.switch must be object, not str"):
        lamps.switch("desk")


def test_what_is_newer_than_the_service_is_refused_before_it_is_sent(running, client):
    lamps = LampApi(client)
    assert [lamps.can_send_version(version) for version in ("1.0", "1.1", "1.2", "2.0")] == [True, True, False, False]
    with pytest.raises(UnsupportedVersion, match=r"lamp\.blink needs version 1\.2 of lamp, but at most 1\.1"):
        lamps.blink("desk")
    with pytest.raises(UnsupportedVersion, match=r"lamp\.switch needs version 1\.2"):
        lamps.switch(Lamp("desk"), colour="red")
    assert lamps.switch(Lamp("desk"), slowly=True).lit
    assert running.manager("lamp").asked == [("desk", True, True)]
    with pytest.raises(MethodNotFound, match="no method 'missing'"):
        lamps.missing()


def test_an_older_member_on_another_host_holds_everybody_back_and_is_named(running, client):
    lamps = LampApi(client)
    assert lamps.dim("desk") is None
    speak(running, "old", "1.0")
    lamps = LampApi(client)  # what it was told before holds for some seconds
    with pytest.raises(UnsupportedVersion, match=r"at most 1\.0 can be used now: old has 1\.0; upgrade"):
        lamps.dim("desk")
    assert lamps.on(host="testhost").dim("desk") is None
    found = lamps.upgrading()
    assert (found.upgrading, found.cap, found.newest) == (True, "1.0", "1.1")
    assert [(each.host, each.version, each.why) for each in found.pinned_by] == [("old", "1.0", "up")]
    assert not lamps.can_send_version("1.1")
    speak(running, "old", "1.1")
    assert LampApi(client).can_send_version("1.1")


def test_a_pin_holds_without_a_question(running, client):
    lamps = LampApi(client, pin="1.0")
    assert lamps.switch(Lamp("desk")).lit
    with pytest.raises(UnsupportedVersion, match=r"at most 1\.0 can be used now"):
        lamps.dim("desk")
    found = lamps.upgrading()
    assert (found.cap, found.newest, found.pinned_by[0].why) == ("1.0", "1.1", "pinned by `rpc_pins` in [messaging]")
    running._started_runtime().upgrades.configure({"lamp": "1.0"}, 300.0)
    with pytest.raises(UnsupportedVersion, match="raise the pin"):
        LampApi(client).dim("desk")


def test_a_namespace_is_an_api_of_its_own(running, client):
    admin = LampAdminApi(client)
    assert admin.reset() == 0
    assert admin.upgrading().cap == "2.1"
    with pytest.raises(UnsupportedVersion, match=r"lamp\.admin\.burn needs version 2\.2 of lamp\.admin"):
        admin.burn()


def test_an_api_may_be_on_another_topic(client):
    with pytest.raises(ServiceNotFound, match="service 'lamps' not found"):
        LampApi(client, topic="lamps").switch(Lamp("desk"))


class Refusing:
    """A client whose daemon does not say what versions there are."""

    options = CallOptions()

    def __init__(self, error):
        self.error = error
        self.asked = []

    def send_request(self, ask):
        self.asked.append((ask.topic, ask.method, ask.version))
        if ask.topic == "ostler":
            raise self.error


@pytest.mark.parametrize(
    "error", [NotPermitted("no role"), MethodNotFound("an older daemon"), ServiceNotFound("no daemon")]
)
def test_where_nobody_says_what_may_be_used_the_service_itself_refuses(error):
    client = Refusing(error)
    lamps = LampApi(client)
    lamps.dim("desk")
    lamps.dim("desk")
    assert client.asked == [("ostler", "service_versions", ""), *[("lamp", "dim", "1.1")] * 2]
    client.error = InvalidInput("x")
    with pytest.raises(InvalidInput):
        LampApi(client).dim("desk")


def test_what_the_daemon_said_is_kept_for_a_moment_and_until_it_proves_wrong():
    clock = FakeClock()

    class Daemon:
        options = CallOptions()
        asked = 0

        def send_request(self, request):
            if request.topic != "ostler":
                raise UnsupportedVersion("too old")
            self.asked += 1
            return [Upgrade(topic="lamp", cap="1.2")]

    daemon = Daemon()
    view = adapter_of(daemon, clock)
    for _ in range(2):
        assert view.get_upgrade("lamp", 1).cap == "1.2"
    assert daemon.asked == 1
    clock.advance(11)
    view.get_upgrade("lamp", 1)
    assert daemon.asked == 2
    with pytest.raises(UnsupportedVersion):
        view.send_request(LampApi(daemon).binding.build_request("dim", {}, None, 0, "1.2"), None)
    view.get_upgrade("lamp", 1)
    assert daemon.asked == 3


def test_an_api_whose_stubs_cannot_be_right_is_refused_by_name():
    with pytest.raises(TypeError, match=r"Newer\.dim has version 1\.1, the class has 1\.0"):

        class Newer(RpcApi):
            topic = "lamp"

            @remote(version="1.1")
            def dim(self) -> None: ...

    with pytest.raises(TypeError, match=r"has version 1\.7"):

        class NewerArgument(RpcApi):
            @remote(since={"x": "1.7"})
            def dim(self, x: int = 0) -> None: ...

    with pytest.raises((TypeError, RuntimeError)):

        class Clash(RpcApi):
            @remote()
            def upgrading(self) -> None: ...

    class Unknown(RpcApi):
        topic = "lamp"

        @remote()
        def dim(self, x: "Nowhere") -> None: ...  # noqa: F821

    class Word(RpcApi):
        topic = "lamp"

        @remote()
        def dim(self, *host: str) -> None: ...

    class Mixed(RpcApi):
        topic = "lamp"

        @remote()
        def dim(self) -> tuple[int, int] | Annotated[str, msgspec.Meta(max_length=1)]: ...

    class Nameless(RpcApi):
        @remote()
        def dim(self) -> None: ...

    client = Client(root="/nowhere")
    for kind, words in (
        (Unknown, "cannot be read"),
        (Word, r"cannot be sent: \*host"),
        (Mixed, "msgspec does not support"),
        (Nameless, "does not name a topic"),
    ):
        with pytest.raises(TypeError, match=words):
            kind(client)
