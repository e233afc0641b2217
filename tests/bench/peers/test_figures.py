from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = ("children", "cores", "figures", "provide", "rows", "peer")


@pytest.fixture(scope="module")
def modules():
    # The bench is a script with modules beside it, and no package.
    before = list(sys.path)
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path[:] = before
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def figures(modules):
    return modules["figures"]


@pytest.fixture
def provide(modules):
    return modules["provide"]


@pytest.fixture
def peer_of(figures):
    def peer(name, p50, rate, **more):
        made = figures.Figures(name, **more)
        for value in (p50, 2 * p50, p50 / 2):
            made.note("p50", value)
            made.note("p99", 3 * value)
            made.note("rate", rate)
            made.note("bare p50", 20.0)
            made.note("bare p99", 40.0)
            made.note("bare rate", 100_000.0)
        return made

    return peer


def test_a_figure_is_the_median_of_its_rounds_and_its_ratio_that_to_the_bare_echo(figures, peer_of):
    peer = peer_of("fast", 50.0, 25_000.0)
    bare = figures.bare_of([peer])
    assert (peer.value("p50"), peer.ratio("p50", bare), peer.ratio("rate", bare)) == (50.0, 2.5, 0.25)
    assert (peer.value("events"), peer.ratio("events", bare)) == (None, None)


def test_the_bare_echo_has_the_rounds_beside_every_peer(figures, peer_of):
    peers = [peer_of("a", 50.0, 1.0), peer_of("b", 60.0, 1.0)]
    peers[1].rounds["bare p50"] = [100.0] * 4
    bare = figures.bare_of([*peers, figures.Figures("c", missing="no network")])
    assert bare.rounds["p50"] == [20.0] * 3 + [100.0] * 4
    assert bare.ratio("p50", bare) == 1.0


def test_a_round_of_calls_gives_microseconds(figures):
    made = figures.Figures("a")
    made.note_calls("bare ", [0.001] * 98 + [0.005] * 2)
    assert made.rounds == {"bare p50": [1000.0], "bare p99": [5000.0]}


def test_the_table_is_aligned_and_names_what_is_missing_with_its_reason(figures, peer_of):
    fast = peer_of("fast one", 50.0, 25_000.0, version="1.2, rabbitmq 3.10", settings="tcp", lost=1200)
    fast.note("events", 5000.0)
    missing = figures.Figures("gone", settings="tcp", missing="nats-server: there is no apt-get")
    lines = figures.table(figures.bare_of([fast]), [fast, missing]).splitlines()
    assert [line.split()[0] for line in lines] == ["PEER", "bare", "fast", "gone"]
    assert len({line.index(word) for line, word in zip(lines, ("NOTES", "unix", "tcp", "not"), strict=True)}) == 1
    assert lines[2].endswith("25,000   0.25     5,000  tcp; 1,200 events lost")
    assert lines[3].split()[1:8] == ["-"] * 7
    assert lines[3].endswith("not measured: nats-server: there is no apt-get")


def test_rows_are_written_with_the_bare_echo_first(figures, peer_of, tmp_path):
    peer = peer_of("a", 50.0, 25_000.0, version="1")
    figures.write(figures.bare_of([peer]), [peer], tmp_path / "b" / "c.json")
    bare, row = json.loads((tmp_path / "b" / "c.json").read_text())
    assert (bare["name"], bare["p50_ratio"]) == ("bare pyzmq", 1.0)
    assert row == {
        "name": "a", "version": "1", "p50_us": 50.0, "p99_us": 150.0, "p50_ratio": 2.5, "in_flight_per_s": 25000.0,
        "in_flight_ratio": 0.25, "events_per_s": None, "events_lost": 0, "bare_p50_us": 20.0,
        "bare_in_flight_per_s": 100000.0, "notes": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (("nats-py", "nats-server"), ""),
        (("Pyro5", ""), ""),
        (("nameko", "rabbitmq"), "rabbitmq: no apt-get"),
        (("grpcio", "rabbitmq"), "grpcio: it could not be installed; rabbitmq: no apt-get"),
    ],
)
def test_a_peer_is_measured_when_there_is_all_it_needs(figures, needs, reason):
    found = {"nats-py": "2", "nats-server": "/usr/sbin/nats-server", "Pyro5": "5", "nameko": "2"}
    assert figures.why_missing(needs, found, {"rabbitmq": "no apt-get"}) == reason


def test_a_round_takes_about_as_long_whatever_the_peer(figures):
    assert figures.count_for(0.5, 0.001, 40, 3000) == 500
    assert figures.count_for(0.5, 1.0, 40, 3000) == 40
    assert figures.count_for(0.5, 1e-9, 40, 3000) == 3000
    assert figures.count_for(0.5, 0.0, 40, 3000) == 3000


def test_clients_have_the_last_core_and_servers_the_others(modules, monkeypatch):
    cores = modules["cores"].Cores
    # The processors are those of the machine.
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {5, 2, 3})
    assert (cores(pinned=True).servers, cores(pinned=True).clients) == ([2, 3], [5])
    assert (cores(pinned=False).servers, cores(pinned=False).clients) == ([2, 3, 5], [2, 3, 5])
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})  # as above
    assert (cores(pinned=True).servers, cores(pinned=True).clients) == ([0], [0])


def test_requirements_are_known_by_their_distribution(provide):
    text = "# what\n\nnats-py>=2.6  # a comment\noslo.messaging >= 14\nPyro5\n"
    assert provide.requirements(text) == {
        "nats-py": "nats-py>=2.6",
        "oslo.messaging": "oslo.messaging >= 14",
        "Pyro5": "Pyro5",
    }


def test_every_peer_of_the_table_is_in_the_requirements(modules, provide):
    text = (HERE / "requirements.txt").read_text(encoding="utf-8")
    asked = {
        line.split('distribution="')[1].split('"')[0]
        for module in HERE.glob("peer_*.py")
        for line in module.read_text(encoding="utf-8").splitlines()
        if 'distribution="' in line
    }
    assert asked - {"ostler"} <= set(provide.requirements(text))


def test_packages_are_read_from_what_apt_would_do(provide):
    simulated = (
        "Reading package lists...\nInst erlang-base (1:25 Debian:12 [amd64])\nInst socat (1.7)\nConf socat (1.7)\n"
    )
    assert provide.packages_of(simulated) == ["erlang-base", "socat"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("ERROR: No distribution for nats-py\nnotice: newer pip\n", "ERROR: No distribution for nats-py"),
        ("W: slow\nE: Unable to locate package nats-server\nbye\n", "E: Unable to locate package nats-server"),
        ("a\nb\n", "b"),
        ("", "it said nothing"),
    ],
)  # fmt: skip
def test_the_reason_is_the_line_that_speaks_of_the_error(provide, said, reason):
    assert provide.reason_of(said) == reason


def test_a_machine_without_apt_is_told_what_to_install(provide, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(provide.Unavailable, match="nats-server is not installed, and there is no apt-get"):
        provide.fetch(provide.Places(tmp_path, machine=tmp_path / "machine"), "nats-server")


def test_a_program_below_build_comes_before_that_of_the_machine(provide, tmp_path):
    places = provide.Places(tmp_path)
    ours = places.unpacked / "usr/sbin/nats-server"
    ours.parent.mkdir(parents=True)
    ours.touch()
    assert places.program("nats-server") == ours


def test_deliveries_are_counted_until_the_last_has_come(modules):
    peer = modules["peer"]
    tally = peer.Tally()

    async def publish(count):
        for _ in range(count * peer.SUBSCRIBERS):
            await tally.acount("event")

    answer = asyncio.run(tally.adeliveries(publish, 5))
    assert answer["lost"] == 0
    assert answer["rate"] > 0
    with pytest.raises(RuntimeError, match="no event arrived"):
        tally.rate(0.0, 5)
