"""Text that somebody else chose, from a server to the command and from a caller to the log, with real processes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_process import OSTLER, DaemonProcess

from ostler import Client
from ostler.errors import InternalError, OstlerError
from ostler.messaging.unix.protocol import ZmtpConnection, encode_frame, greeting

EVIL = "A\x1b]0;pwned\x07\x1b[2J\x9b31mB\x7f\u202egnp\u2066\r\nFORGED LINE\x85\u2028[red]X"
RAW = set("\x07\x9b\x7f\u202e\u2066\x85\u2028")
DRAWN = re.compile(r"\x1b\[[0-9;?]*[mKhlAGJH]")
CALLS = [["call", "a", "b"], ["--json", "call", "a", "b"], ["dump"], ["--json", "dump"], ["volume", "list"], ["reload"]]


class HostileServer:
    """Answers every request with a report of progress, and then a result or an error, all of hostile text."""

    def __init__(self, root: Path) -> None:
        (root / "run").mkdir()
        (root / "etc").mkdir()
        self.fails = False
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(root / "run" / "rpc.sock"))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listening.accept()[0],), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        talk = ZmtpConnection(frozenset({b"DEALER"}), 2**20)
        with contextlib.suppress(OSError), connected:
            connected.sendall(greeting(b"ROUTER"))
            while data := connected.recv(65536):
                for message in talk.receive_data(data):
                    self._answer(connected, msgspec.msgpack.decode(message))

    def _answer(self, connected: socket.socket, request: list[Any]) -> None:
        if request[0] != 1:
            return
        number = request[2]
        error = [
            11,
            1,
            number,
            [f"x.{EVIL}", "ostler.Busy", "ostler.OstlerError"],
            EVIL,
            f"{EVIL}\n{EVIL}",
            {EVIL: EVIL},
        ]
        result = [10, 1, number, {EVIL: [EVIL, {EVIL: EVIL}], "x": EVIL}]
        for each in ([13, 1, number, 1.0, 2.0, EVIL], error if self.fails else result):
            connected.sendall(encode_frame(msgspec.msgpack.encode(each)))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HostileServer]:
    made = HostileServer(tmp_path)
    yield made
    made.close()


def on_terminal(words: list[str]) -> str:
    """Run a command on a terminal; return all that it would have shown."""
    child, descriptor = pty.fork()
    if child == 0:
        os.execvpe(words[0], words, {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"})
    out, until = b"", time.monotonic() + 20
    try:
        while time.monotonic() < until and select.select([descriptor], [], [], 20)[0]:
            if not (data := os.read(descriptor, 65536)):
                break
            out += data
    except OSError:
        pass  # the command has ended
    finally:
        os.waitpid(child, 0)
        os.close(descriptor)
    return out.decode()


def check(text: str) -> None:
    assert text
    assert not RAW & set(text), repr(text)
    assert not any(line.startswith("FORGED LINE") for line in re.split(r"[\r\n]+", text))
    assert "Traceback" not in text


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_a_hostile_server_shows_nothing_on_the_terminal_but_text(
    server: HostileServer, tmp_path: Path, words: list[str], fails: bool
) -> None:
    server.fails = fails
    command = [str(OSTLER), "--root", str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    check(done.stdout + done.stderr)
    assert "\x1b" not in done.stdout + done.stderr
    seen = on_terminal(command)
    check(seen)
    assert "\x1b" not in DRAWN.sub("", seen)


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_json_is_valid_in_any_locale_and_words_end_in_no_traceback(
    server: HostileServer, tmp_path: Path, locale: str
) -> None:
    environ = {"PATH": os.environ["PATH"], "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [str(OSTLER), "--root", str(tmp_path)]
    done = subprocess.run(
        [*command, "--json", "call", "a", "b"], capture_output=True, timeout=30, check=True, env=environ
    )
    assert json.loads(done.stdout.decode("utf-8"))["x"] == EVIL
    server.fails = True
    done = subprocess.run([*command, "call", "a", "b"], capture_output=True, timeout=30, check=False, env=environ)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


LOUD = """
import logging
import threading
from ostler import Manager, exposed

class LoudManager(Manager):
    @exposed(role="viewer")
    def say(self, ctx, text: str) -> None:
        threading.current_thread().name = text
        logging.getLogger(text).warning("told %s", text, extra={"given": text, text: text})
        thread = threading.Thread(target=self.fail, args=(text,), name=text)
        thread.start()
        thread.join()
        self.fail(text)

    def fail(self, text: str) -> None:
        raise ValueError(text)
"""


@pytest.fixture
def loud(make_daemon: Any) -> Any:
    def make(kind: str) -> DaemonProcess:
        daemon: DaemonProcess = make_daemon(
            f'[services.loud]\nmanager = "loud_module:LoudManager"\n[log]\nformat = "{kind}"\n'
        )
        daemon.install("loud", LOUD)
        daemon.start()
        with Client(root=str(daemon.root)) as client, pytest.raises(InternalError):
            client.call("loud", "say", text=EVIL)
        with Client(root=str(daemon.root)) as client, contextlib.suppress(OstlerError):
            client.call(EVIL, EVIL)
        daemon.wait_log("ValueError")
        daemon.stop()
        return daemon

    return make


def test_no_text_of_a_caller_forges_a_line_of_the_text_log(loud: Any) -> None:
    log = loud("text").log
    assert "FORGED LINE" in log
    assert not (RAW | set("\x1b\r")) & set(log), repr(log)
    for line in log.split("\n"):
        assert not line or line.startswith("    ") or re.match(r"\d{4}-\d\d-\d\dT", line), repr(line)
        assert not line.startswith("    20"), "nothing set off looks like a record"


def test_every_line_of_the_json_log_is_one_valid_object(loud: Any) -> None:
    log = loud("json").log
    assert not (RAW | set("\x1b\r")) & set(log), repr(log)
    found = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any("told A\\x1b]0;pwned" in line["message"] for line in found)
    assert any("ended with an error" in line["message"] for line in found)
    assert all(line.startswith(("{", "2")) for line in log.splitlines())
