"""The methods that every client has, and the views that `on` returns; what goes over a wire is in tests/contract."""

import asyncio
import inspect
from collections.abc import Iterator

import msgspec
import pytest

from ostler import AsyncClient, Client, InvalidInput, RpcApi, ServiceClient, remote
from ostler.messaging.clients.call_methods import AsyncCallMethods, CallOptions, SyncCallMethods
from ostler.messaging.clients.retry import Retry
from ostler.messaging.wire.request import CAST_FLAGS, FANOUT_FLAGS, CallRequest

# private: _client: adapters in adapters work as well, and cost a step for each

SOON = Retry(attempts=2)
METHODS = ("call", "acall", "cast", "acast", "fanout", "afanout", "stream", "astream")


class Blocking(SyncCallMethods):
    """A client that notes what it is asked."""

    def __init__(self):
        self.options = CallOptions()
        self.asked = []

    def send_request(self, ask, retry=None):
        self.asked.append((ask, retry))
        return 1

    def open_stream(self, ask, credit=0):
        self.asked.append((ask, credit))
        return iter(())


class OnLoop(AsyncCallMethods):
    """A client for a loop that notes what it is asked."""

    def __init__(self):
        self.options = CallOptions()
        self.asked = []

    async def send_request(self, ask, retry=None):
        self.asked.append((ask, retry))
        return 1

    def open_stream(self, ask, credit=0):
        self.asked.append((ask, credit))
        return iter(())


class Inside(ServiceClient):
    """A manager's client that notes what it is asked."""

    upgrades = None

    def __init__(self):
        self.options = CallOptions()
        self.asked = []
        self.published = []

    def send_request(self, ask, retry=None):
        self.asked.append((ask, retry))
        return 1

    async def asend_request(self, ask, retry=None):
        return self.send_request(ask, retry)

    def open_stream(self, ask, credit=0):
        self.asked.append((ask, credit))
        return iter(())

    def open_astream(self, ask, credit=0):
        return self.open_stream(ask, credit)

    def publish(self, event, payload=None, *, topic=None):
        self.published.append((event, payload, topic))


def methods_of(client):
    return [getattr(client, name) for name in METHODS if hasattr(client, name)]


def do(method, *words, **arguments):
    """Call a method of a client of any kind."""
    result = method(*words, **arguments)
    return asyncio.run(result) if inspect.isawaitable(result) else result


@pytest.mark.parametrize("client", [Client, AsyncClient, ServiceClient])
def test_the_methods_of_clients_have_no_parameter_but_topic_and_method(client):
    for method in methods_of(client):
        _, topic, name, arguments = inspect.signature(method).parameters.values()
        assert topic.kind is name.kind is inspect.Parameter.POSITIONAL_ONLY
        assert arguments.kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize("kind", [Blocking, OnLoop, Inside])
def test_options_are_those_of_the_view_and_arguments_those_of_the_method(kind):
    client = kind()
    view = client.on(host="node2", retry=SOON).on(timeout=5, type=int, credit=7, on_progress=print)
    arguments = {"host": "x", "self": 1, "client": 2}
    for method in methods_of(view):
        if "fanout" in method.__name__:
            continue
        do(method, "lamp", "switch", **arguments)
        ask, other = client.asked.pop()
        if "cast" in method.__name__:
            assert (ask, other) == (CallRequest("lamp", "switch", arguments, "node2", 5, flags=CAST_FLAGS), SOON)
        else:
            assert ask == CallRequest("lamp", "switch", arguments, "node2", 5, int, print)
            assert other == (7 if "stream" in method.__name__ else SOON)
    for method in methods_of(view.on(host=None)):
        if "fanout" in method.__name__:
            assert do(method, "lamp", "switch", **arguments) == 1
            assert client.asked.pop() == (CallRequest("lamp", "switch", arguments, None, 5, flags=FANOUT_FLAGS), SOON)


@pytest.mark.parametrize("kind", [Blocking, OnLoop, Inside])
def test_a_view_leaves_the_client_and_other_views_as_they_are(kind):
    client = kind()
    first = client.on(timeout=5)
    second = first.on(host="node2")
    assert client.options == CallOptions()
    assert first.options == CallOptions(timeout=5)
    assert second.options == CallOptions(timeout=5, host="node2")
    assert type(first) is type(second)
    assert second._client is client, "a view of a view is one of the client"


@pytest.mark.parametrize("kind", [Blocking, OnLoop, Inside])
def test_options_are_checked_when_they_are_set(kind):
    with pytest.raises(TypeError, match="no option 'tries'"):
        kind().on(tries=5)
    with pytest.raises(InvalidInput, match="timeout"):
        kind().on(timeout="soon")


def test_a_managers_view_publishes_as_the_client_does():
    client = Inside()
    client.upgrades = object()
    view = client.on(timeout=5)
    view.publish("switched", 1, topic="lamp")
    assert client.published == [("switched", 1, "lamp")]
    assert view.upgrades is client.upgrades


class CountingTransport:
    """Counts the connections that are made; none of them answers."""

    def __init__(self):
        self.connections = 0

    def connect(self):
        self.connections += 1
        raise InterruptedError

    connect_async = None


def test_making_a_view_connects_nothing():
    transport = CountingTransport()
    client = Client(transport=transport)
    view = client.on(host="a").on(timeout=1)
    assert transport.connections == 0
    with pytest.raises(InterruptedError):
        view.call("lamp", "switch")
    assert transport.connections == 1


class LampApi(RpcApi):
    topic = "lamp"

    @remote()
    def switch(self, host: str, timeout: int = 0) -> int: ...

    @remote()
    def names(self) -> Iterator[str]: ...


def test_a_typed_client_has_the_options_of_the_view_that_it_is_made_of():
    client = Blocking()
    lamps = LampApi(client.on(host="node2", credit=7)).on(timeout=5, retry=SOON)
    lamps.switch("x", timeout=1)
    arguments = {"host": "x", "timeout": 1}
    assert client.asked.pop() == (CallRequest("lamp", "switch", arguments, "node2", 5, int, version="1.0"), SOON)
    list(lamps.names())
    assert client.asked.pop()[1] == 7
    assert lamps.on(host=None).binding.options == CallOptions(timeout=5, retry=SOON, credit=7)


def test_a_typed_client_of_a_view_goes_the_way_of_its_client():
    client = OnLoop()
    assert asyncio.run(LampApi(client.on(timeout=5)).switch.acall("x")) == 1
    with pytest.raises(RuntimeError, match="is asynchronous"):
        LampApi(client.on(timeout=5)).switch("x")
    inside = Inside()
    inside.upgrades = type("Upgrades", (), {"pin_of": lambda self, topic: "auto"})()
    assert LampApi(inside.on(timeout=5)).switch("x") == 1
    assert asyncio.run(LampApi(inside.on(timeout=5)).switch.acall("x")) == 1


def test_a_typed_client_takes_no_type():
    client = Blocking()
    for make in (lambda: LampApi(client).on(type=int), lambda: LampApi(client.on(type=msgspec.Raw))):
        with pytest.raises(TypeError, match="have the types of its stubs"):
            make()
    with pytest.raises(TypeError, match="no option 'tries'"):
        LampApi(client).on(tries=5)
    with pytest.raises(InvalidInput, match="goes to every host"):
        LampApi(client).on(host="node2").switch.fanout("x")
