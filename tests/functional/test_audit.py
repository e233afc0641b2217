"""Who did what is kept, with the real daemon; and what is secret is nowhere."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import threading
from contextlib import closing
from typing import Any

import pytest
from daemon_process import NOBODY, OSTLER, DaemonProcess, as_nobody, cannot_become_nobody, wait_for

from ostler import Client
from ostler.errors import (
    InternalError,
    InvalidArguments,
    InvalidInput,
    MethodNotFound,
    NotPermitted,
    OstlerError,
)

CONFIG = """
[services.vault]
manager = "audited_managers:VaultManager"
[services.vault.drivers.one]
driver = "audited_managers:LoggingDriver"
[services.echo]
manager = "audited_managers:AuditedEchoManager"
[log]
level = "debug"
format = "json"
[log.levels]
"peewee" = "debug"
"""
CANARY = "hunter2'canary\"x"


def audit(daemon: DaemonProcess, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.json("audit", *options)
    return found


@pytest.fixture
def vault(make_daemon) -> DaemonProcess:
    return make_daemon(CONFIG).start()


def client(daemon: DaemonProcess, **options: Any) -> Client:
    return Client(root=daemon.root, **options)


def test_what_changes_something_or_fails_is_kept_and_what_only_looks_is_not(vault) -> None:
    with client(vault) as c:
        c.call("vault", "look")
        c.call("echo", "say", text="hello")
        with pytest.raises(MethodNotFound):
            c.call("echo", "nothing", text="x")
        with pytest.raises(InternalError):
            c.call("vault", "put", name="raise", password="long enough")
    said, nothing, stored = audit(vault)
    assert (said["topic"], said["method"], said["arguments"]) == ("echo", "say", '{"text":"hello"}')
    assert (said["uid"], said["result"], said["refused"], said["times"]) == (
        0 if said["user"] == "root" else said["uid"],
        "done",
        False,
        1,
    )
    assert said["pid"] > 0
    assert said["seconds"] > 0
    assert said["request_id"]
    assert said["at"] <= stored["at"]
    assert said["at"].endswith("Z")
    assert (nothing["result"], nothing["refused"], nothing["arguments"]) == ("MethodNotFound", True, '{"text":"***"}')
    assert (stored["result"], stored["refused"]) == ("InternalError", False)
    assert stored["arguments"] == '{"name":"raise","password":"***"}'
    assert [row["method"] for row in audit(vault, "--failed")] == ["nothing", "put"]
    assert [row["method"] for row in audit(vault, "--method", "echo.s*")] == ["say"]
    assert audit(vault, "--who", "nobody-at-all") == []
    assert len(audit(vault, "--who", str(said["uid"]), "--limit", "1")) == 1
    assert audit(vault, "--since", "1h") == audit(vault)


def test_what_a_request_causes_in_other_services_is_kept_under_its_id(vault) -> None:
    with client(vault) as c:
        c.call("vault", "walk")
    wait_for(lambda: len(audit(vault)) == 4, "the casts in the audit")
    rows = audit(vault)
    outer = next(row for row in rows if row["method"] == "walk")
    nested = [row for row in rows if row["topic"] == "echo"]
    assert sorted(row["method"] for row in nested) == ["note", "note", "where"]
    assert all(row["request_id"].startswith(outer["request_id"] + ".") for row in nested)
    assert all(row["uid"] == outer["uid"] and row["pid"] == outer["pid"] for row in nested)


def test_reload_and_what_is_done_to_services_is_kept(vault) -> None:
    vault.command("reload")
    vault.command("service", "disable", "echo", "--reason", "moving")
    vault.command("service", "enable", "echo")
    vault.command("service", "drain", "echo")
    assert [row["method"] for row in audit(vault)] == ["reload", "service_disable", "service_enable", "service_drain"]
    assert json.loads(audit(vault)[1]["arguments"])["reason"] == "moving"


def test_a_reload_by_signal_is_kept_with_its_verdict(vault) -> None:
    vault.signal(signal.SIGHUP)
    vault.wait_log("nothing to change live")
    vault.configure("[nonsense]\n", "conf.d/wrong.toml")
    vault.signal(signal.SIGHUP)
    vault.wait_log("reload refused")
    good, bad = audit(vault, "--who", "SIGHUP")
    assert (good["method"], good["result"]) == ("reload", "done")
    assert (bad["method"], bad["result"]) == ("reload", "ConfigurationError")
    assert "nonsense" in bad["text"]


def test_ten_thousand_refusals_are_one_entry(vault) -> None:
    with client(vault) as c:
        for _ in range(2000):
            with pytest.raises(InvalidArguments):
                c.call("echo", "say", text=3)
        for number in range(300):
            with pytest.raises(MethodNotFound):
                c.call("echo", f"made_up_{number}")
    rows = audit(vault)
    said = [row for row in rows if row["method"] == "say"]
    assert [row["times"] for row in said] == [2000]
    assert said[0]["last"] >= said[0]["at"]
    assert sum(row["times"] for row in rows if row["method"].startswith("made_up")) == 300
    assert len(rows) < 30


@pytest.mark.failure_mode("RPC", "a uid without a role")
@pytest.mark.root
def test_the_refusal_of_a_uid_without_a_role_is_kept(make_daemon) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    daemon = make_daemon(CONFIG + f'[access]\nviewer = ["{NOBODY - 1}"]\n')
    daemon.make_traversable()
    daemon.start()
    for _ in range(3):
        daemon.command("call", "vault", "put", "name=a", f"password={CANARY}", check=4, before=as_nobody())
    rows = [row for row in audit(daemon) if row["uid"] == NOBODY]
    assert [(row["method"], row["result"], row["times"], row["refused"]) for row in rows] == [
        ("connect", "NotPermitted", 3, True)
    ]
    assert CANARY not in str(rows)  # nothing of what it sent was decoded
    assert rows[0]["user"] in audit(daemon, "--who", str(NOBODY))[0]["user"]


def test_the_audit_is_read_while_the_daemon_is_down(vault) -> None:
    with client(vault) as c:
        c.call("echo", "say", text="before the end")
    vault.stop()
    found = vault.command("audit")
    assert "before the end" in found.stdout
    assert "not running" in found.stderr
    assert [row["method"] for row in audit(vault, "--method", "echo.*")] == ["say"]
    vault.start()
    assert [row["method"] for row in audit(vault, "--method", "echo.*")] == ["say"]


def test_the_audit_is_followed(vault) -> None:
    following = subprocess.Popen(
        [OSTLER, "--root", str(vault.root), "--json", "audit", "--follow"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert following.stdout is not None
        with client(vault) as c:
            c.call("echo", "say", text="one")
            assert json.loads(following.stdout.readline())["arguments"] == '{"text":"one"}'
            c.call("echo", "say", text="two")
            assert json.loads(following.stdout.readline())["arguments"] == '{"text":"two"}'
    finally:
        following.terminate()
        following.wait(10)
        following.stdout.close()


def test_a_database_that_is_away_loses_no_line(make_daemon) -> None:
    vault = make_daemon(CONFIG + "[store]\nbusy_timeout = 0\n").start()
    other = sqlite3.connect(vault.root / "state" / "ostler.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with client(vault) as c:
            c.call("echo", "say", text="while it was away")
        log = vault.wait_log("audit: {")
        assert log.count("cannot write the audit log") == 1
        assert "while it was away" in log.split("audit: {")[1]
        other.execute("ROLLBACK")
        with client(vault) as c:
            c.call("echo", "say", text="when it was back")
        wait_for(lambda: "when it was back" in json.dumps(audit(vault)), "the audit in the database")
    finally:
        other.close()


def _calls(secret: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (method, {"name": name, **argument})
        for name in ("keep", "raise", "chain", "refuse")
        for method, argument in (
            ("put", {"password": secret}),
            ("put_async", {"password": secret}),
            ("put_key", {"key": secret.encode()}),
            ("login", {"login": {"user": "bob", "password": secret}}),
        )
    ] + [
        ("pass_on", {"name": "on", "password": secret}),
        ("login", {"name": "wrong", "login": {"user": 3, "password": secret}}),
        ("login", {"name": "wrong", "login": secret}),
        ("put", {"name": "wrong", "passwort": secret}),
        ("put", {"name": 3, "password": secret}),
        ("nowhere", {"password": secret}),
    ]


def test_a_secret_argument_is_nowhere(vault) -> None:
    """Every way out of the daemon is looked through for a value that was handed over as a secret."""
    events: list[Any] = []
    with client(vault) as listener:
        stream = listener.events("vault")
        reader = threading.Thread(target=lambda: events.extend(zip(range(10), stream, strict=False)), daemon=True)
        reader.start()
        seen = []
        with client(vault) as c:
            for method, arguments in _calls(CANARY):
                try:
                    seen.append(repr(c.call("vault", method, **arguments)))
                except OstlerError as error:
                    seen.append(f"{error} {error.details} {error!r}")
            c.cast("vault", "put", name="refuse", password=CANARY)
            c.cast("vault", "put", name="raise", password=CANARY)
            seen.append(json.dumps(c.call("ostler", "dump")))
            with pytest.raises(InvalidInput, match=r"\*\*\* is too short"):
                c.call("vault", "put", name="refuse", password=CANARY)
        reader.join(10)
        vault.wait_log("cast of vault.put failed")
    seen += [json.dumps(audit(vault)), vault.command("audit").stdout, vault.command("dump").stdout, repr(events)]
    vault.stop()
    with closing(sqlite3.connect(vault.root / "state" / "ostler.db")) as database:
        seen += list(database.iterdump())
    log = vault.log
    assert "storing ***" in log  # the lines are there, without it
    assert "saying ***" in log
    assert "cannot keep" in log
    for text in [*seen, log]:
        for spelt in ("hunter2", "canary"):
            where = text.find(spelt)
            assert where < 0, text[max(0, where - 200) : where + 100]


def test_a_role_that_is_too_low_is_refused_and_kept(vault) -> None:
    vault.configure('[access.methods]\n"echo.say" = "nobody"\n', "conf.d/closed.toml")
    vault.command("reload")
    with client(vault) as c, pytest.raises(NotPermitted, match="closed to everyone on this host"):
        c.call("echo", "say", text="x")
    assert audit(vault, "--failed")[0]["result"] == "NotPermitted"


def test_what_a_kill_cuts_off_is_kept_as_interrupted_and_what_ended_is_there_once(vault) -> None:
    with client(vault) as c:
        c.call("echo", "wait", seconds=1.0)
        c.cast("echo", "wait", seconds=60.0)
        background = subprocess.Popen(
            [OSTLER, "--root", str(vault.root), "call", "vault", "wait_with", "password=long enough", "seconds=60"],
            env=vault.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        kept = vault.root / "state"

        def under_way() -> bool:
            with closing(sqlite3.connect(f"file:{next(kept.rglob('*.db'))}?mode=ro", uri=True)) as database:
                rows = database.execute("SELECT value FROM key_value WHERE namespace = 'ostler/audit-begun'").fetchall()
            assert "long enough" not in str(rows)
            return len(rows) == 2

        wait_for(under_way, "both to be written down")
        vault.running.kill()
        vault.running.wait(10)
        background.wait(20)
    vault.start()
    rows = wait_for(lambda: [row for row in audit(vault) if row["result"] == "interrupted"], "their ends")
    assert [(row["topic"], row["method"]) for row in rows] == [("echo", "wait"), ("vault", "wait_with")]
    assert rows[1]["arguments"] == '{"password":"***","seconds":"60"}'
    assert "the daemon ended while the request was in progress" in rows[0]["text"]
    assert [row["result"] for row in audit(vault, "--method", "echo.wait")] == ["done", "interrupted"]
    vault.wait_log("2 requests were in progress when the daemon last ended")
