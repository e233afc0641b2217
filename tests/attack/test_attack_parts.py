"""The parts of the attack suite: what it sends is what the protocol says, and its judgement is right."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import hostile_wire as wire
import msgspec
import pytest
from attack_table import ATTACKS, NOBODY, VIEWER, VIEWERS
from attacked_daemon import ProcessSize, repeated_lines
from attackers import AttackConnection, Flood
from measure_attack import Figures, misses, quantile
from run_attacks import main, selection

from ostler.messaging.unix.protocol import ZmtpConnection
from ostler.messaging.wire.envelope import Request, decode_to_server

# private: _connect, _open, _poll, _serve: of the attack itself, one step at a time

SERVER = frozenset({b"DEALER", b"SUB"})
MODEST = Figures("x", admin=[0.01] * 100, viewer=[0.01] * 100, service=[0.01] * 20, ping_gap=1.0, beat_gap=0.5)
ANY = ATTACKS["requests"]


def heard(data: bytes, largest: int = 64 * 2**20) -> list[bytes]:
    talk = ZmtpConnection(SERVER, largest)
    messages = talk.receive_data(data)
    while talk.has_more:
        messages += talk.receive_data(b"")
    return messages


def test_a_request_is_one_that_the_daemon_reads() -> None:
    (message,) = heard(wire.hello(b"DEALER") + wire.request(7, "target", "big", {"size": 5}, timeout=2.0, credit=9))
    request = decode_to_server(message)
    assert isinstance(request, Request)
    assert (request.id, request.topic, request.method, request.timeout, request.credit) == (7, "target", "big", 2.0, 9)


def test_a_wide_value_has_an_array_for_each_byte() -> None:
    assert msgspec.msgpack.decode(wire.wide(1000)) == [[]] * 1000
    assert msgspec.msgpack.decode(wire.deep(3)) == [[[None]]]


def test_a_question_fits_into_a_prefix() -> None:
    (message,) = heard(wire.hello(b"SUB") + wire.question(3, b"target."))
    assert message == b"\1!0000000000000003?l\ntarget."


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.hello])
def test_what_is_sent_begins_with_a_conversation(name: str) -> None:
    attack = ATTACKS[name]
    assert heard(wire.hello(attack.kind) + b"".join(attack.opening())[:1000]) is not None
    assert all(isinstance(each, bytes) and each for each in (*attack.opening(), *attack.again()))


def test_a_connection_sends_its_opening_once_and_the_rest_in_turn() -> None:
    ours, theirs = socket.socketpair()
    connection = AttackConnection(ours, [b"hello"], [b"a", b"b"], 1)
    with ours, theirs:
        for _ in range(4):
            connection.send()
        assert theirs.recv(100) == b"hellobab"
        assert not connection.idle


def test_a_flood_replaces_what_is_cut_and_counts_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        flood = Flood(ANY, str(tmp_path / "s"))
        flood._attack = type(ANY)("one", connections=1)
        flood._connect()
        listener.accept()[0].close()
        flood.run(0.0)
        for number, event in flood._poll.poll(1.0):
            flood._serve(number, flood._open[number], event)
        flood._connect()
    assert (flood.counts["connected"], flood.counts["cut"]) == (2, 1)
    for connection in flood._open.values():
        connection.socket.close()


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([], 0.99) == 0.0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(map(float, range(200))), 0.99) == 198.0


def test_what_was_promised_and_kept_is_no_miss() -> None:
    assert misses(MODEST, ANY) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"admin": [0.2] * 100}, "administrator's p99"),
        ({"viewer": [0.3] * 100}, "viewer's p99"),
        ({"service": [3.0] * 20}, "service's method"),
        ({"ping_gap": 3.0}, "watchdog"),
        ({"beat_gap": 3.0}, "heartbeats"),
        ({"back": 1.5}, "as before"),
        ({"not_back": "3 in flight"}, "3 in flight"),
        ({"errors": ["admin echo: Busy"]}, "Busy"),
        ({"lines": {"refused #": 9}}, "refused #"),
        ({"ended": -6}, "ended with -6"),
        ({"peak": ProcessSize(900, 0, 0)}, "peak"),
        ({"after": ProcessSize(90, 0, 0)}, "afterwards"),
        ({"admin": []}, "nothing was measured"),
    ],
)
def test_what_was_promised_and_not_kept_is_named(change: dict[str, object], word: str) -> None:
    figures = Figures(**{**vars(MODEST), **change})
    assert any(word in each for each in misses(figures, ANY)), misses(figures, ANY)


def test_what_the_machine_takes_is_allowed_for() -> None:
    figures = Figures(**{**vars(MODEST), "admin": [0.12] * 100})
    assert misses(figures, ANY)
    figures.bystander = [0.03] * 100
    assert not misses(figures, ANY)


def test_lines_of_one_kind_are_counted_whatever_numbers_they_have() -> None:
    log = "2026-01-01 00:00:01 refused uid 5\n2026-01-01 00:00:02 refused uid 6\n2026-01-01 00:00:02 ready\n"
    assert repeated_lines(log, 1) == {"refused uid #": 2}
    assert repeated_lines(log, 2) == {}


def test_in_a_hurry_each_attack_is_run_in_its_strongest_form() -> None:
    everything, quick = list(selection([], quick=False)), list(selection([], quick=True))
    assert {name for name, _ in quick} == set(ATTACKS)
    assert {who for _, who in everything} == {NOBODY, VIEWER, VIEWERS}
    assert VIEWER not in {who for _, who in quick}
    assert [name for name, _ in selection(["nobody: PING"], quick=False)] == ["PING"]


def test_attacks_can_be_listed_without_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "deep nests"]) == 0
    assert capsys.readouterr().out == "viewer: deep nests\nviewers: deep nests\n"


def test_the_command_says_what_it_takes() -> None:
    script = Path(__file__).with_name("run_attacks.py")
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
