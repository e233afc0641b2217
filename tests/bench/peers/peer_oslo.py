"""oslo.messaging with RabbitMQ: an RPC server and client with its defaults; events are fanout casts to 8 servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from peer import (
    BURST,
    SUBSCRIBERS,
    TEXT,
    WINDOW,
    MeasuredPeer,
    Tally,
    converse,
    each,
    main,
    ready,
    threads,
    wait_for_the_end,
)


class _Echo:
    def __init__(self, listeners) -> None:
        self._listeners = listeners

    def echo(self, ctxt, text):
        return text

    def burst(self, ctxt, count):
        for _ in range(count):
            self._listeners.cast({}, "tick", text=TEXT)


class _Listener:
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def tick(self, ctxt, text):
        self._tally.count()


def _transport(address: str):
    import oslo_messaging
    from oslo_config import cfg

    cfg.CONF([])  # everything stays at its default
    return oslo_messaging.get_rpc_transport(cfg.CONF, url=f"rabbit://guest:guest@{address}/")


def _serve(folder: Path, address: str) -> None:
    import oslo_messaging

    transport = _transport(address)
    listeners = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="ticks"))
    target = oslo_messaging.Target(topic="echo", server="bench")
    endpoints = [_Echo(listeners.prepare(fanout=True))]
    server = oslo_messaging.get_rpc_server(transport, target, endpoints, executor="threading")
    server.start()
    ready()
    wait_for_the_end()


def _ask(folder: Path, address: str) -> None:
    import oslo_messaging

    transport, tally = _transport(address), Tally()
    for number in range(SUBSCRIBERS):
        target = oslo_messaging.Target(topic="ticks", server=f"listener{number}")
        oslo_messaging.get_rpc_server(transport, target, [_Listener(tally)], executor="threading").start()
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="echo"))

    def call() -> None:
        client.call({}, "echo", text=TEXT)

    with ThreadPoolExecutor(WINDOW) as pool:
        converse(
            {
                "call": lambda count: each(call, count),
                "flight": lambda count: threads([call] * WINDOW, count, pool),
                "events": lambda count: tally.deliveries(lambda n: client.cast({}, "burst", count=n), count),
            }
        )


PEERS = [
    MeasuredPeer(
        name="oslo.messaging", distribution="oslo.messaging", serve=_serve, ask=_ask, program="rabbitmq", events=BURST,
        settings="tcp; confirmed publishing, manual ack, queues not durable; threads; events: fanout casts",
    )
]  # fmt: skip

if __name__ == "__main__":
    main(PEERS)
