"""`ostler log -f` of a real daemon: nobody who follows it takes anything from others who do, or from the log."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_process import OSTLER, DaemonProcess, wait_for

from ostler import Busy, Client
from ostler.log.followers import MAX_FOLLOWERS

PLUGIN = """
from ostler import Context, Manager, exposed, hookimpl


class Talker(Manager):
    @exposed(role="operator")
    def talk(self, ctx: Context, words: list[str]) -> None:
        for word in words:
            self.log.debug("detail %s", word)
            self.log.info("event %s", word)
            self.log.warning("alarm %s", word)


@hookimpl
def ostler_managers():
    return {"talker": Talker}
"""
CONFIG = '[services.north]\nmanager = "talker"\n[services.south]\nmanager = "talker"\n'
WORDS = [f"{number:03d}" for number in range(300)]


class LogFollower:
    """`ostler log -f` as a child process whose output goes to a file."""

    def __init__(self, daemon: DaemonProcess, output: Path, *options: str) -> None:
        self._output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [OSTLER, "--root", daemon.root, "--json", "log", "-f", *options],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def messages(self, kind: str) -> list[str]:
        """Return the words after a kind of line that have come, in their order."""
        lines = self._output.read_text().rpartition("\n")[0].splitlines()
        found = [json.loads(line)["message"] for line in lines]
        return [message.removeprefix(f"{kind} ") for message in found if message.startswith(f"{kind} ")]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def daemon(make_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    made: DaemonProcess = make_daemon(CONFIG)
    made.install("talker", PLUGIN)
    return made.start()


@pytest.fixture
def follow(daemon: DaemonProcess, tmp_path: Path) -> Iterator[Callable[..., LogFollower]]:
    """Return a function that begins to follow the log, and waits until lines arrive."""
    started: list[LogFollower] = []

    def start(*options: str, sees: str = "south") -> LogFollower:
        follower = LogFollower(daemon, tmp_path / f"follower-{len(started)}", *options)
        started.append(follower)

        def has_begun() -> bool:
            talk(daemon, sees, ["begin"])
            return "begin" in follower.messages("alarm")

        wait_for(has_begun, "the first line to be followed")
        return follower

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


def talk(daemon: DaemonProcess, topic: str, words: list[str]) -> None:
    daemon.call(topic, "talk", words=words)


def count_followers(daemon: DaemonProcess) -> int:
    traffic = daemon.call("ostler", "traffic")
    (own,) = [each for each in traffic["topics"] if each["topic"] == "ostler"]
    return sum(each["in_flight"] for each in own["methods"] if each["method"] == "log_follow")


def logged(daemon: DaemonProcess, word: str) -> list[str]:
    """Return which kinds of lines with a word are in the daemon's own log, and of which service."""
    return re.findall(rf"(detail|event|alarm) {word}\b.*service=(\w+)", daemon.log)


@pytest.mark.failure_mode("Machine", "one who follows the log and stops reading, or is killed")
def test_followers_take_nothing_from_each_other_nor_from_the_log(daemon: DaemonProcess, follow) -> None:
    levels = daemon.json("log-level")
    talk(daemon, "south", ["alone"])
    details = follow("--level", "debug", "--service", "south")
    alarms = follow("--level", "warning", sees="north")
    victim = follow("--level", "debug")
    assert count_followers(daemon) == 3
    victim.process.send_signal(signal.SIGSTOP)  # it no longer reads, and then is no longer there
    for begin in range(0, len(WORDS), 50):
        if begin == 150:
            victim.end(signal.SIGKILL)
        for topic in ("north", "south"):
            talk(daemon, topic, WORDS[begin : begin + 50])
    wait_for(lambda: WORDS[-1] in details.messages("alarm"), "the last line of one service")
    wait_for(lambda: alarms.messages("alarm").count(WORDS[-1]) == 2, "the last line of both services")
    for kind in ("detail", "event", "alarm"):
        assert [word for word in details.messages(kind) if word in WORDS] == WORDS
    assert sorted(word for word in alarms.messages("alarm") if word in WORDS) == sorted(WORDS * 2)
    assert alarms.messages("detail") + alarms.messages("event") == []
    talk(daemon, "south", ["followed"])
    for word in ("alone", "followed"):
        shown = [("event", "south"), ("alarm", "south")]
        wait_for(lambda word=word, shown=shown: logged(daemon, word) == shown, f"the lines of {word} in the log")
    assert "detail" not in daemon.log
    assert daemon.json("log-level") == levels
    assert (details.end(signal.SIGINT), alarms.end(signal.SIGINT)) == (0, 0)
    wait_for(lambda: count_followers(daemon) == 0, "all followers to be gone")
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Machine", "one who follows the log and stops reading, or is killed")
def test_places_of_followers_are_limited_and_free_again(daemon: DaemonProcess) -> None:
    for _ in range(3):
        clients = [Client(root=str(daemon.root)) for _ in range(MAX_FOLLOWERS + 1)]
        try:
            streams = [client.stream("ostler", "log_follow") for client in clients]
            for stream in streams[:-1]:
                next(stream)
            with pytest.raises(Busy, match=f"{MAX_FOLLOWERS} clients follow the log already"):
                next(streams[-1])
        finally:
            for client in clients:
                client.close()
        wait_for(lambda: count_followers(daemon) == 0, "all followers to be gone")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_who_follows_is_told_that_the_daemon_has_ended(daemon: DaemonProcess, follow, stop: int) -> None:
    follower = follow()
    daemon.signal(stop)
    daemon.wait_end()
    assert follower.process.wait(20) != 0
