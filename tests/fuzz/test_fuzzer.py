"""The fuzzer itself: the same seed gives the same frames, and what gives way is found, written down and found again."""

import msgspec
import pytest
import run_fuzz as run
from fuzzed_service import to_server
from mutator import Mutator

from ostler.messaging import RpcServer
from ostler.messaging.unix.protocol import ZmtpConnection


@pytest.mark.parametrize("name", run.TARGETS)
def test_a_round_follows_from_its_seed_alone(name):
    first, again, other = (list(run.TARGETS[name]().steps(seed, 300)) for seed in ("1", "1", "2"))
    assert first == again
    assert first != other


def test_messages_are_real_wrong_and_no_messages_at_all():
    mutator = Mutator(1, [b"corpus"])
    found = [mutator.any(to_server(mutator)) for _ in range(2000)]
    assert len(set(found)) > 1500
    assert any(not data for data in found)
    assert sum(_is_array(data) for data in found) > 500


def _is_array(data):
    try:
        return isinstance(msgspec.msgpack.decode(data), list)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False


@pytest.mark.parametrize(
    ("name", "part", "method"), [("server", RpcServer, "_handle_control"), ("talk", ZmtpConnection, "_handle_ready")]
)
def test_a_defect_is_found_written_down_and_found_again(name, part, method, tmp_path, monkeypatch):
    folder = tmp_path / "build" / "fuzz"

    def broken(*_):
        raise KeyError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(part, method, broken)  # a defect that nobody can leave in the code for this
        with pytest.raises(AssertionError, match=rf"{name} gave way in round 3 of seed 7.*a defect"):
            run.run_round(name, 7, 3, 3000, folder=folder)
        (file,) = folder.iterdir()
        with pytest.raises(KeyError, match="a defect"):
            run.replay(file)
    assert run.replay(file) > 0


def test_make_fuzz_ends_with_the_time_and_says_how_far_it_came(capsys):
    assert run.main(["--target", "talk", "--seed", "1", "--minutes", "0"]) == 0
    assert "20,0" in capsys.readouterr().out
