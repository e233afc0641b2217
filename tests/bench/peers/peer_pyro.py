"""Pyro5: a daemon with its pool of threads, and a proxy for each caller. It has no publish/subscribe."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from peer import TEXT, WINDOW, MeasuredPeer, converse, each, main, ready, threads, wait_for_the_end


def _serve(folder: Path, address: str) -> None:
    import Pyro5.api

    @Pyro5.api.expose
    class Echo:
        def echo(self, text):
            return text

    daemon = Pyro5.api.Daemon()
    (folder / "pyro.uri").write_text(str(daemon.register(Echo, "echo")))
    threading.Thread(target=daemon.requestLoop, daemon=True).start()
    ready()
    wait_for_the_end()


def _ask(folder: Path, address: str) -> None:
    import Pyro5.api

    uri = (folder / "pyro.uri").read_text()
    # A proxy belongs to one thread.
    local = threading.local()

    def call() -> None:
        if not hasattr(local, "proxy"):
            local.proxy = Pyro5.api.Proxy(uri)
        local.proxy.echo(TEXT)

    with ThreadPoolExecutor(WINDOW) as pool:
        converse(
            {
                "call": lambda count: each(call, count),
                "flight": lambda count: threads([call] * WINDOW, count, pool),
            }
        )


PEERS = [
    MeasuredPeer(
        name="Pyro5", distribution="Pyro5", serve=_serve, ask=_ask,
        settings="tcp; serpent; server with threads, 64 callers in threads; no pub/sub",
    )
]  # fmt: skip

if __name__ == "__main__":
    main(PEERS)
