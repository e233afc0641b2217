import asyncio
import stat
from collections.abc import AsyncIterator

import pytest

from ostler.aio import LoopQueue
from ostler.clock import SystemClock
from ostler.config import load_text, validate
from ostler.config.paths import Paths
from ostler.daemon.connectivity.access_policy import make_access
from ostler.daemon.connectivity.messaging_stack import MessagingStack, make_metric_exporter, make_socket_transport
from ostler.errors import Busy, MessagingError, NotPermitted
from ostler.messaging import AsyncClient, Context, Endpoint, exposed
from ostler.testing.memory_transport import MemoryTransport
from ostler.testing.virtual_time import virtual_clock
from ostler.types import Peer, Role


class Control:
    """Answers the self-call, or does not."""

    rpc_version = "1.0"
    namespaces: dict[str, object] = {}

    def __init__(self) -> None:
        self.deaf = False

    @exposed(role="viewer", changes=False)
    async def echo(self, ctx: Context, text: str = "") -> str:
        """Return the text."""
        if self.deaf:
            await asyncio.Event().wait()
        return text


def configuration(text=""):
    return validate(load_text(text), {}, {})


def made(transport, text="", clock=None, audit=None):
    messages = MessagingStack(
        configuration(text), transport, clock or virtual_clock(), LoopQueue(asyncio.get_running_loop()), audit=audit
    )
    control = Control()
    messages.start(control)
    return messages, control


@pytest.mark.virtual_time
async def test_the_proof_is_a_call_that_goes_out_and_comes_in_again() -> None:
    messages, control = made(MemoryTransport())
    await messages.self_check()
    await messages.self_check()
    assert messages.stats()["topics"]["ostler"]["requests"] == 2
    control.deaf = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await messages.self_check()
    control.deaf = False
    await messages.self_check()
    await messages.close()


@pytest.mark.virtual_time
async def test_after_a_close_nothing_is_proven_and_a_second_close_is_harmless() -> None:
    messages, _ = made(MemoryTransport())
    await messages.self_check()
    await messages.close()
    await messages.close()
    with pytest.raises(MessagingError):
        await messages.self_check()


@pytest.mark.virtual_time
async def test_a_first_socket_is_given_back_when_the_second_cannot_be_had() -> None:
    class Half(MemoryTransport):
        closed = 0

        def serve_rpc(self, quotas=None):
            link = super().serve_rpc(quotas)
            close = link.close

            def counted():
                self.closed += 1
                close()

            link.close = counted
            return link

        def serve_events(self, quotas=None):
            raise MessagingError("somebody else listens there")

    transport = Half()
    with pytest.raises(MessagingError, match="somebody else"):
        made(transport)
    assert transport.closed == 1


def test_roles_come_from_the_configuration_and_unknown_names_are_logged(caplog) -> None:
    access = make_access(configuration('[access]\nviewer = ["nobody-of-that-name"]\noperator = ["4242"]\n'))
    assert access.role_of(Peer(4242, 4242, 1, "uid 4242")) is Role.OPERATOR
    assert "nobody-of-that-name" in caplog.text


async def test_the_sockets_have_their_place_mode_and_limits(tmp_path) -> None:
    paths = Paths.find(str(tmp_path), {})
    paths.runtime_dir.mkdir(parents=True)
    text = '[messaging]\nsocket_mode = "0600"\nmax_message_size = "1MiB"\nevent_queue = 5\n'
    transport = make_socket_transport(paths, configuration(text), {})
    messages, _ = made(transport, text, SystemClock())
    assert stat.S_IMODE(paths.rpc_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.events_socket.stat().st_mode) == 0o600
    assert transport.limits.max_queued == 5
    async with AsyncClient(paths.rpc_address) as client:
        assert await client.call("ostler", "echo", text="over a real socket") == "over a real socket"
        assert messages.link_stats()["rpc"].connections == 1
        assert messages.link_stats()["events"].connections == 0
    await messages.close()
    assert not paths.rpc_socket.exists()


@pytest.mark.virtual_time
async def test_a_reload_ends_the_streams_of_those_who_lose_their_role() -> None:
    class Lamp:
        @exposed(role="viewer", changes=False)
        async def watch(self, ctx: Context) -> AsyncIterator[int]:
            """Yield one item, and wait for the next for ever."""
            yield 1
            await asyncio.Event().wait()

    transport = MemoryTransport()
    ann, ben = (transport.as_peer(Peer(uid, uid, 1, f"uid {uid}")) for uid in (4001, 4002))
    messages, _ = made(transport, '[access]\nviewer = ["4001", "4002"]\n')
    messages.dispatcher.registry.add_endpoint(Endpoint("lamp", messages.dispatcher.host, Lamp(), None))
    async with AsyncClient(transport=ann) as anns, AsyncClient(transport=ben) as bens:
        hers, his = aiter(anns.stream("lamp", "watch")), aiter(bens.stream("lamp", "watch"))
        assert (await anext(hers), await anext(his)) == (1, 1)
        messages.apply(configuration('[access]\nviewer = ["4002"]\n'))
        with pytest.raises(NotPermitted, match="uid 4001 has no role here"):
            await anext(hers)
        assert messages.dispatcher.streams.open_count == 1
    await messages.close()


class Audit:
    """Keeps what it is told of those who were refused before there was a request."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, str, str, str]] = []

    def record(self, call, error) -> None: ...

    def record_refusal(self, peer, topic, method, error) -> None:
        self.refusals.append((peer.name, topic, method, type(error).__name__))


@pytest.mark.virtual_time
async def test_who_is_not_let_in_and_who_may_not_subscribe_is_told_to_the_audit() -> None:
    eve, audit = Peer(1001, 1001, 8, "uid 1001"), Audit()
    unaudited, _ = made(MemoryTransport())
    unaudited.server.on_refused(eve, NotPermitted("nobody keeps it"))
    await unaudited.close()
    messages, _ = made(MemoryTransport(), audit=audit)
    messages.server.on_refused(eve, NotPermitted("one too many"))
    messages.publisher.on_refused(eve, Busy("one subscriber too many"))
    assert not messages.publisher.may_subscribe(eve)
    assert audit.refusals == [
        ("uid 1001", "ostler", "connect", "NotPermitted"),
        ("uid 1001", "ostler", "connect", "Busy"),
        ("uid 1001", "ostler", "subscribe", "NotPermitted"),
    ]
    await messages.close()


@pytest.mark.virtual_time
async def test_metrics_go_to_opentelemetry_when_that_is_on() -> None:
    assert make_metric_exporter(configuration()) is None
    exporter = make_metric_exporter(configuration("[telemetry]\notel = true\n"))
    assert type(exporter).__name__ == "OtelMetrics"
