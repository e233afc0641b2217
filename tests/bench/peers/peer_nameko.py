"""nameko with RabbitMQ: a service container, the standalone proxy, and events broadcast to eight containers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from peer import BURST, SUBSCRIBERS, TEXT, WINDOW, MeasuredPeer, Tally, converse, each, main, ready, wait_for_the_end


def _config(address: str) -> dict[str, str]:
    return {"AMQP_URI": f"pyamqp://guest:guest@{address}/"}


def _serve(folder: Path, address: str) -> None:
    import eventlet
    import eventlet.tpool

    eventlet.monkey_patch()
    from nameko.containers import ServiceContainer
    from nameko.events import EventDispatcher
    from nameko.rpc import rpc

    class Echo:
        name = "echo"
        dispatch = EventDispatcher()

        @rpc
        def echo(self, text):
            return text

        @rpc
        def burst(self, count):
            for _ in range(count):
                self.dispatch("tick", TEXT)

    container = ServiceContainer(Echo, config=_config(address))
    container.start()
    ready()
    eventlet.tpool.execute(wait_for_the_end)


def _listen(address: str) -> None:
    """Be the eight subscribers, a process of its own: services of nameko need patched sockets, its proxy does not."""
    import eventlet
    import eventlet.tpool

    eventlet.monkey_patch()
    from nameko.containers import ServiceContainer
    from nameko.events import BROADCAST, event_handler
    from nameko.standalone.rpc import ClusterRpcProxy

    tally = Tally()

    def listener(number: int):
        class Listener:
            name = f"listener{number}"

            @event_handler("echo", "tick", handler_type=BROADCAST, reliable_delivery=False)
            def tick(self, payload):
                tally.count()

        return Listener

    for number in range(SUBSCRIBERS):
        ServiceContainer(listener(number), config=_config(address)).start()
    with ClusterRpcProxy(_config(address)) as cluster:
        ready()
        while line := eventlet.tpool.execute(sys.stdin.readline):
            print(json.dumps(tally.deliveries(cluster.echo.burst.call_async, int(line))), flush=True)


class _Listeners:
    def __init__(self, address: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "listen", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process.stdout.readline()

    def deliveries(self, count: int):
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _ask(folder: Path, address: str) -> None:
    from nameko.standalone.rpc import ClusterRpcProxy

    listeners = _Listeners(address)
    with ClusterRpcProxy(_config(address)) as cluster:
        converse(
            {
                "call": lambda count: each(lambda: cluster.echo.echo(text=TEXT), count),
                "flight": lambda count: _in_flight(cluster.echo.echo, count),
                "events": listeners.deliveries,
            }
        )


def _in_flight(method, count: int) -> float:
    began, waiting = time.perf_counter(), deque()
    for _ in range(count):
        if len(waiting) == WINDOW:
            waiting.popleft().result()
        waiting.append(method.call_async(text=TEXT))
    for reply in waiting:
        reply.result()
    return count / (time.perf_counter() - began)


PEERS = [
    MeasuredPeer(
        name="nameko", distribution="nameko", serve=_serve, ask=_ask, program="rabbitmq", events=BURST,
        settings="tcp; confirmed publishing, ack, durable queues, persistent messages; events: broadcast, not reliable",
    )
]  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1] == "listen":
        _listen(sys.argv[2])
    else:
        main(PEERS)
