"""`ostler top` with the real daemon."""

from __future__ import annotations

import json
import subprocess
import threading

from daemon_process import OSTLER, wait_for

from ostler import Client, OstlerError

CONFIG = """
[services.echo]
manager = "faulty_managers:EchoManager"
"""


def test_what_is_called_shows_with_rate_times_refusals_and_errors(make_daemon) -> None:
    daemon = make_daemon(CONFIG).start()
    top = subprocess.Popen(
        [OSTLER, "--root", str(daemon.root), "--json", "top", "--interval", "0.5"], stdout=subprocess.PIPE, text=True
    )
    stop = threading.Event()

    def work() -> None:
        with Client(root=daemon.root) as client:
            while not stop.is_set():
                client.call("echo", "echo", text="x")
                try:
                    client.call("echo", "echo", text=3)
                except OstlerError:
                    pass

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert top.stdout is not None
        pictures = [json.loads(top.stdout.readline()) for _ in range(3)]
    finally:
        stop.set()
        worker.join()
        top.terminate()
        top.wait(10)
        top.stdout.close()
    line = next(each for each in pictures[-1]["methods"] if each["method"] == "echo.echo")
    assert line["rate"] > 10
    assert 0 < line["p50"] <= line["p99"] < 1
    assert 0.3 < line["errors"] / line["rate"] < 0.7
    assert 0.4 < pictures[-1]["seconds"] < 2


def test_what_is_in_flight_shows_and_what_has_ended_does_not(make_daemon) -> None:
    daemon = make_daemon(CONFIG).start()
    sleeping = subprocess.Popen(
        [OSTLER, "--root", str(daemon.root), "call", "echo", "sleep", "seconds=30"], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: daemon.status()["services"][0]["in_flight"] == 1, "the call")
        table = daemon.command("top", "--once", "--interval", "0.2").stdout
        line = next(line for line in table.splitlines() if line.startswith("echo.sleep"))
        assert line.split() == ["echo.sleep", "0.0", "-", "-", "1", "0.0", "0.0"]
        assert "1 in flight" in table
    finally:
        sleeping.terminate()
        sleeping.wait(10)
    wait_for(lambda: daemon.status()["services"][0]["in_flight"] == 0, "the end of the call")
    assert "echo.sleep" not in daemon.command("top", "--once", "--interval", "0.2").stdout
    assert "echo.sleep" in daemon.command("top", "--once", "--all", "--interval", "0.2").stdout
