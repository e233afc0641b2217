"""Tokens with the real daemon: made, used through a gateway, kept over a restart, revoked at once, never written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from daemon_process import DaemonProcess

from ostler.errors import NotPermitted

CONFIG = """
[access]
viewer = ["cert:alice", "cert:bob smith"]
operator = ["cert:alice"]
[services.door]
manager = "gateway_manager:DoorManager"
"""


@pytest.fixture
def door(make_daemon) -> DaemonProcess:
    return make_daemon(CONFIG).start()


def new_token(daemon: DaemonProcess, name: str, *options: str) -> str:
    made = daemon.command("token", "new", name, *options)
    secret = made.stdout.strip()
    assert made.stdout == f"{secret}\n", "the secret stands alone"
    assert name in made.stderr
    assert secret not in made.stderr
    return secret


def test_a_token_is_who_it_says_until_it_is_revoked(door) -> None:
    secret = new_token(door, "ci", "--role", "operator", "--expires", "90d")
    who = f"token:{secret}"
    assert door.call("door", "role", who=who) == "token:ci operator"
    identity = door.call("door", "ask", who=who, topic="ostler", method="whoami")
    assert (identity["name"], identity["role"], identity["principal"]) == ("token:ci", "operator", "token:ci")
    with pytest.raises(NotPermitted, match="needs the role admin, token:ci has operator"):
        door.call("door", "ask", who=who, topic="ostler", method="token.list")

    door.call("door", "begin_wait", who=who)
    door.command("token", "revoke", "ci")
    # It may have been on its way still: then it ends with its link, and for the same reason.
    assert door.call("door", "end_of_wait").startswith("NotPermitted: ")
    with pytest.raises(NotPermitted, match="was revoked"):
        door.call("door", "ask", who=who, topic="ostler", method="whoami")
    assert door.command("token", "revoke", "ci", check=1).stderr.startswith("ostler: token ci not found")


def test_tokens_are_kept_over_a_restart_and_by_backup_and_restore(door) -> None:
    secret = new_token(door, "ci", "--role", "admin", "--expires", "never")
    backup = f"{door.root}/copy.db"
    door.command("db", "backup", backup)
    assert door.stop() == 0
    door.start()
    assert door.call("door", "role", who=f"token:{secret}") == "token:ci admin"
    door.command("token", "revoke", "ci")
    assert door.stop() == 0
    door.command("db", "restore", backup, "--yes")
    door.start()
    assert door.call("door", "role", who=f"token:{secret}") == "token:ci admin", "the copy is older than the revocation"


def test_no_secret_is_written_anywhere(door) -> None:
    secret = new_token(door, "ci", "--role", "admin")
    door.call("door", "ask", who=f"token:{secret}", topic="ostler", method="echo", arguments={"text": secret})
    with pytest.raises(NotPermitted):
        door.call("door", "role", who="token:ostk_" + "A" * 43)
    refused = [row for row in door.json("audit") if row["method"] == "token"]
    assert [(row["who"], row["result"], row["refused"]) for row in refused] == [
        ("token from 192.0.2.7", "NotPermitted", True)
    ]
    texts = [
        str(door.json("audit")),
        str(door.json("dump")),
        str(door.json("token", "list")),
        door.command("log").stdout,
    ]
    door.stop()
    files = [path for path in Path(door.root).rglob("*") if path.is_file()]
    texts += [path.read_bytes().decode("latin-1") for path in files]
    assert [text for text in texts if secret[5:] in text] == []


def test_the_audit_log_names_the_caller_and_not_the_service(door) -> None:
    secret = new_token(door, "ci", "--role", "admin")
    door.call("door", "ask", who=f"token:{secret}", topic="ostler", method="log_level", arguments={"level": "info"})
    row: dict[str, Any] = next(row for row in door.json("audit") if row["method"] == "log_level")
    assert (row["who"], row["uid"], row["key"], row["result"]) == ("token:ci", -1, "token:ci", "done")
    assert [row["method"] for row in door.json("audit", "--who", "token:ci")] == ["log_level"]


def test_certificates_and_users_have_the_roles_of_the_configuration(door) -> None:
    assert door.call("door", "role", who="cert:alice") == "cert:alice operator"
    assert door.call("door", "role", who="cert:bob smith") == "cert:bob smith viewer"
    assert door.call("door", "role", who="cert:mallory") == "cert:mallory None"
    assert door.call("door", "role", who="uid:0") == "uid 0 admin"
    door.configure(CONFIG.replace('operator = ["cert:alice"]', ""))
    door.command("reload")
    assert door.call("door", "role", who="cert:alice") == "cert:alice viewer"
