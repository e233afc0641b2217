"""`ostler console` with the real daemon: who may use it, what it does, and what hostile input does to the daemon."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from daemon_process import OSTLER, DaemonProcess, as_nobody, cannot_become_nobody

from ostler import Client
from ostler.errors import NotFound, NotPermitted, OstlerError

CONFIG = """
[daemon]
console = true
[access]
admin = ["nobody"]
[services.door]
manager = "gateway_manager:DoorManager"
"""


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    return make_daemon(CONFIG).start()


class Session:
    """A session over the wire."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._attached = iter(client.stream("ostler", "console.attach"))
        self.id = next(self._attached)
        self.names = next(self._attached)

    def run(self, source: str) -> str:
        parts = self._client.stream("ostler", "console.run", session=self.id, source=source)
        return "".join(part["text"] for part in parts)


@pytest.fixture
def session(daemon) -> Iterator[Session]:
    with Client(root=daemon.root) as client:
        yield Session(client)


def pipe(daemon: DaemonProcess, source: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, OSTLER, "--root", str(daemon.root), "console"]
    return subprocess.run(command, input=source, capture_output=True, text=True, timeout=30, check=False)


def lines_of_audit(daemon: DaemonProcess) -> list[tuple[str, str]]:
    return [
        (row["method"], row["text"])
        for row in daemon.json("audit")
        if row["method"] in ("console.start", "console.line")
    ]


def test_it_is_off_by_default(make_daemon) -> None:
    found = make_daemon("").start().command("console", check=1)
    assert found.stderr.startswith("ostler: the console of this daemon is off\nhint: set `console = true` in [daemon]")


def test_lines_of_a_pipe_run_until_the_first_error_and_are_audited(daemon) -> None:
    found = pipe(daemon, "answer = 41 + 1\nanswer\nprint(sorted(services))\n")
    assert found.stdout == "42\n['door']\n"
    failed = pipe(daemon, "1/0\nprint('never')\n")
    assert failed.returncode == 1
    assert failed.stdout.endswith("ZeroDivisionError: division by zero\n")
    (start, _), (line, text), *_ = lines_of_audit(daemon)
    assert (start, line) == ("console.start", "console.line")
    assert "answer = 41 + 1" in text
    assert [row["method"] for row in daemon.json("audit")].count("console.end") == 2


def test_names_stay_for_the_session_and_await_is_allowed(session) -> None:
    assert "services" in session.names
    session.run("import asyncio\nasync def later(x):\n    await asyncio.sleep(0.01)\n    return x\n")
    assert session.run("await later(7)") == "7\n"
    assert session.run("_ + 1") == "8\n"
    assert session.run("print(await store.aread(lambda: 5), len(dump()) > 10)") == "5 True\n"


def test_what_others_print_does_not_come_here(session) -> None:
    for _ in range(100):  # a print that is under way when the input ends crashed the daemon once in a few times
        session.run("import threading; threading.Thread(target=print, args=('from a thread',)).start()")
        assert session.run("print('mine')") == "mine\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("while True: pass", "kept the event loop for 2s"),
        ("import time\ntime.sleep(3600)", "kept the event loop for 2s"),
        ("async def f():\n    while True: pass\nawait f()", "kept the event loop for 2s"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def broken(:", "SyntaxError"),
        ("x = '\0'", "null bytes"),
        ("(" * 5000, "SyntaxError"),
        ("-" * 20000 + "1", "Error"),
        ("print('a' * 3_000_000)", "more characters"),
        ("class C:\n    def __repr__(self): raise ValueError('no')\nC()", "ValueError: no"),
        ("import os\npid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)[1]", "0\n"),
        ("import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(9)", ""),
        ("class Bad(BaseException):\n    def __str__(self): raise self\nraise Bad", "Bad"),
    ],
)  # fmt: skip
def test_a_hostile_input_is_over_soon_and_the_daemon_goes_on(daemon, session, source, said) -> None:
    began = time.monotonic()
    assert said in session.run(source)
    assert time.monotonic() - began < 10
    assert session.run("'still there'") == "'still there'\n"
    assert daemon.call("ostler", "echo", text="x") == "x"


def test_a_session_that_has_ended_does_not_disarm_the_others(daemon) -> None:
    with Client(root=daemon.root) as first, Client(root=daemon.root) as second:
        Session(first)
        other = Session(second)
        first.close()
        while not [row for row in daemon.json("audit") if row["method"] == "console.end"]:
            second.call("ostler", "echo")
        assert "kept the event loop for 2s" in other.run("while True: pass")


def test_an_input_that_ends_the_daemon_is_in_the_audit_log_with_all_of_it(daemon, session) -> None:
    padding = "".join(f"# padding {number:04}\n" for number in range(200))
    with pytest.raises(OstlerError):
        session.run(f"{padding}import os; os._exit(7)")
    assert daemon.process.wait(10) == 7
    daemon.start()
    lines = [row["text"] for row in daemon.json("audit") if row["method"] == "console.line"]
    whole = "".join(text.partition(") ")[2] for text in sorted(lines))
    assert whole == f"{padding}import os; os._exit(7)"


def test_an_input_that_is_too_long_is_refused(session) -> None:
    with pytest.raises(Exception, match="65536"):
        session.run("#" * 70_000)


def test_it_is_for_root_and_the_user_of_the_daemon_on_its_socket_alone(daemon, session) -> None:
    for method in ("console.attach", "console.run"):
        arguments: dict[str, Any] = {} if method == "console.attach" else {"session": session.id, "source": "1"}
        for who in ("uid:0", "local"):
            with pytest.raises(NotPermitted, match="on the daemon's unix socket, not for"):
                daemon.call("door", "first_item", who=who, topic="ostler", method=method, arguments=arguments)


@pytest.mark.skipif(bool(cannot_become_nobody()), reason=cannot_become_nobody())
def test_another_administrator_has_no_console(daemon) -> None:
    daemon.make_traversable()
    found = pipe(daemon, "1", before=as_nobody())
    assert "the console is for root and the daemon's user" in found.stderr
    assert found.returncode == 4


def test_a_session_belongs_to_its_process(daemon, session) -> None:
    found = daemon.command("call", "ostler", "console.run", f"session={session.id}", "source=1", "--json", check=None)
    assert found.returncode != 0
    with Client(root=daemon.root) as other, pytest.raises(NotFound, match="has no console with that id"):
        list(other.stream("ostler", "console.run", session="x" * 16, source="1"))


def test_a_session_ends_with_its_connection(daemon) -> None:
    with Client(root=daemon.root) as client:
        Session(client)
    with Client(root=daemon.root) as client:
        for _ in range(50):
            if [row for row in daemon.json("audit") if row["method"] == "console.end"]:
                return
            client.call("ostler", "echo")
    raise AssertionError("the end of the session is not in the audit log")


def test_a_session_does_not_hold_up_the_stop(daemon, session) -> None:
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10


@pytest.fixture
def on_a_terminal(daemon) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Return the command on a terminal, and the other end of that."""
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [OSTLER, "--root", str(daemon.root), "console"], stdin=other_end, stdout=other_end, stderr=other_end
    )
    os.close(other_end)
    yield process, terminal
    process.kill()
    process.wait()
    os.close(terminal)


def test_ctrl_c_interrupts_a_line_and_ctrl_d_ends_the_session(daemon, on_a_terminal) -> None:
    process, terminal = on_a_terminal
    seen = ""

    def wait_for(text: str) -> None:
        nonlocal seen
        until = time.monotonic() + 20
        while text not in seen:
            assert time.monotonic() < until, seen
            seen += os.read(terminal, 4096).decode()
        seen = seen.partition(text)[2]

    wait_for(">>> ")
    os.write(terminal, b"import asyncio\n")
    wait_for(">>> ")
    os.write(terminal, b"await asyncio.sleep(3600)\n")
    wait_for("\n")  # it has been read
    while not any("sleep(3600)" in text for _, text in lines_of_audit(daemon)):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    wait_for("KeyboardInterrupt")
    wait_for(">>> ")
    os.write(terminal, b"def f():\n    return 6 * 7\n\nf()\n")
    wait_for("42")
    wait_for(">>> ")
    os.write(terminal, b"\x04")
    assert process.wait(20) == 0
