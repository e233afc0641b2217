from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ostler.cli.follow import until_interrupted

FOLLOW = """
import sys, time
from ostler.cli import command_line as entry
class Client:
    def __enter__(self): return self
    def __exit__(self, *error): print("closed", file=sys.stderr)
    def events(self, pattern, **options):
        from ostler.messaging.events import Event
        yield Event("volume", "node1", "created", {}, 1, 1, 1.0)
        time.sleep(60)
sys.exit(entry.run_command(["events"], {}, connect=lambda *a: Client()))
"""


def follow(**more: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", FOLLOW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,  # type: ignore[call-overload]
    )


@pytest.mark.failure_mode("Machine", "output that is closed, full or not read")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_reader_that_goes_away_while_nothing_happens_ends_the_follower(ignored: bool) -> None:
    def ignore_interrupts() -> None:  # as a shell does for a job in the background
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with follow(preexec_fn=ignore_interrupts if ignored else None) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"volume.node1.created" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == b"closed\n"


def test_ctrl_c_ends_the_follower_with_0() -> None:
    with follow() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == b"closed\n"


def test_outside_of_a_pipe_nothing_is_watched() -> None:
    before = signal.getsignal(signal.SIGPIPE)
    with until_interrupted():
        assert signal.getsignal(signal.SIGPIPE) == before
