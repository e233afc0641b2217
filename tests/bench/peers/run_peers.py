"""`make bench-peers`: one payload, a text of 64 bytes, through Ostler and through what users have today.

Each peer has its real server in a process of its own and its client in another, set up as its own documentation tells
users to begin. Peer and bare echo take turns, round by round; each figure is the median of its rounds. Clients run on
the last core, servers and what they talk through on the others. What cannot be installed here stands in the table with
its reason. The rows go to `build/bench-peers.json` as well.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import zmq

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks it shares rows and yardsticks with

from bare_echo import BareEcho
from bare_pubsub import BarePubSub
from children import Child, Children
from cores import Cores
from figures import Figures, bare_of, count_for, table, why_missing, write
from peer import BURST, MeasuredPeer
from programs import FREE_PORT, running
from provide import Places, Unavailable, fetch, make_environment, versions

HERE = Path(__file__).parent
BUILD = HERE.parents[2] / "build"
MODULES = ("ostler", "oslo", "nats", "grpc", "pyro", "nameko", "http", "dbus")
_LEAST = {"call": 40, "flight": 64, "events": 10}
_MOST = {"call": 3000, "flight": 20000}


def main(arguments: list[str] | None = None) -> int:
    """Measure the peers that were asked for; return the exit code."""
    chosen = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers = [peer for name in chosen.only or MODULES for peer in importlib.import_module(f"peer_{name}").PEERS]
    places = Places(BUILD / "peers")
    folder = Path(tempfile.mkdtemp(prefix="ostler-peers-"))
    rounds, seconds = (2, 0.15) if chosen.quick else (7, 0.25)
    try:
        with Children():
            found, reasons = _provided(peers, places)
            print(f"Measuring on {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}.", flush=True)
            cores = Cores(pinned=not chosen.not_pinned)
            cores.place(os.getpid(), cores.servers)
            with BareEcho(folder) as echo:
                run = _Run(places, folder, _Rounds(echo, cores, rounds, seconds), found, reasons)
                measured = [run.measured(peer) for peer in peers]
            bare = _bare(measured, folder, cores, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(bare, measured)}\n")
    write(bare, measured, chosen.output)
    print(f"{1 + len(measured)} rows in {chosen.output}; load now {os.getloadavg()[0]:.2f}")
    return 0


def _provided(peers: list[MeasuredPeer], places: Places) -> tuple[dict[str, str], dict[str, str]]:
    """Install what the peers need; return the versions of what there is, and the reasons why the rest is not."""
    places.home.mkdir(parents=True, exist_ok=True)
    print("Looking for what the peers need; what is missing goes below build/peers ...", flush=True)
    reasons = make_environment(places) if any(not peer.own for peer in peers) else {}
    found = versions(places, sorted({peer.distribution for peer in peers if not peer.own}))
    found |= {"ostler": importlib.metadata.version("ostler"), FREE_PORT: ""}
    for program in sorted({peer.program for peer in peers if peer.program} - {FREE_PORT}):
        try:
            found[program] = str(fetch(places, program))
        except Unavailable as error:
            reasons[program] = str(error)
    return found, reasons


class _Rounds:
    """Asks a client and the bare echo in turns."""

    def __init__(self, bare: BareEcho, cores: Cores, rounds: int, seconds: float) -> None:
        self._bare, self.cores, self._rounds, self._seconds = bare, cores, rounds, seconds

    def take(self, peer: MeasuredPeer, client: Child, figures: Figures) -> None:
        """Warm the client up, then measure it beside the bare echo, whose client is this process."""
        self.cores.place(os.getpid(), self.cores.clients)
        calls, flights, events = self._counts(peer, client)
        for _ in range(self._rounds):
            figures.note_calls("bare ", self._bare.one_at_a_time(2000))
            figures.note_calls("", client.ask("call", calls))
            figures.note("bare rate", self._bare.in_flight(10000))
            figures.note("rate", client.ask("flight", flights))
            if peer.events:
                answer = client.ask("events", events)
                figures.note("events", answer["rate"])
                figures.lost += answer["lost"]

    def _counts(self, peer: MeasuredPeer, client: Child) -> tuple[int, int, int]:
        client.ask("call", _LEAST["call"])
        each = sum(client.ask("call", _LEAST["call"])) / _LEAST["call"]
        client.ask("flight", _LEAST["flight"] * 4)
        paces = {"call": each, "flight": 1 / client.ask("flight", _LEAST["flight"] * 8)}
        if peer.events:
            client.ask("events", _LEAST["events"])
            paces["events"] = 8 / client.ask("events", _LEAST["events"] * 5)["rate"]
        most = {**_MOST, "events": peer.events}
        counts = [count_for(self._seconds, pace, _LEAST[verb], most[verb]) for verb, pace in paces.items()]
        return (*counts, 0)[:3]


class _Run:
    """Measures one peer after another; one that fails says so in its row, and the others go on."""

    def __init__(
        self, places: Places, folder: Path, turns: _Rounds, found: dict[str, str], reasons: dict[str, str]
    ) -> None:
        self._places, self._folder, self._turns = places, folder, turns
        self._found, self._reasons = found, reasons

    def measured(self, peer: MeasuredPeer) -> Figures:
        """Return the figures of a peer."""
        figures = Figures(peer.name, version=self._found.get(peer.distribution, ""), settings=peer.settings)
        figures.missing = why_missing((peer.distribution, peer.program), self._found, self._reasons)
        began = time.monotonic()
        print(f"  {peer.name} ...", end="", flush=True)
        if not figures.missing:
            try:
                self._measure(peer, figures)
            except (RuntimeError, OSError) as error:
                figures.missing, figures.rounds = str(error), {}
        print(f" {figures.notes}" if figures.missing else f" {time.monotonic() - began:.0f} s", flush=True)
        return figures

    def _measure_unsent(self, peer: MeasuredPeer, figures: Figures) -> None:
        """Start what the peer talks through, its server and its client, and measure."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        cores = self._turns.cores
        cores.place(os.getpid(), cores.servers)
        with running(peer.program, self._places, folder / "program") as (address, version):
            figures.version += f", {peer.program} {version}" if version else ""
            with self._end("serve", peer, folder, address) as server:
                server.line()
                cores.place(os.getpid(), cores.clients)
                with self._end("ask", peer, folder, address) as client:
                    client.line()
                    self._turns.take(peer, client, figures)

    def _end(self, end: str, peer: MeasuredPeer, folder: Path, address: str) -> Child:
        python = sys.executable if peer.own else str(self._places.python)
        script = str(HERE / f"{peer.serve.__module__}.py")
        return Child([python, script, end, peer.name, str(folder), address], folder / f"{end}.log")


def _bare(measured: list[Figures], folder: Path, cores: Cores, rounds: int) -> Figures:
    """Return the row of the bare echo, with a bare PUB and eight SUB beside it."""
    bare = bare_of(measured)
    bare.version = f"{zmq.__version__}, libzmq {zmq.zmq_version()}"
    cores.place(os.getpid(), cores.servers)
    with BarePubSub(folder) as publisher:
        cores.place(os.getpid(), cores.clients)
        for _ in range(rounds):
            bare.note("events", publisher.deliveries(BURST))
    return bare


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", nargs="+", choices=MODULES, metavar="PEER", help=f"only: {', '.join(MODULES)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a verdict")
    parser.add_argument("--not-pinned", action="store_true", help="leave it to the kernel which core runs what")
    parser.add_argument("--output", type=Path, default=BUILD / "bench-peers.json", help="the JSON file (%(default)s)")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
