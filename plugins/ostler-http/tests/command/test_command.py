"""The command over HTTP: each family of verbs shows what it shows over the socket, to whoever may see it."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess

import pytest
import trustme
from daemon_process import OSTLER, WAIT_TIMEOUT

from support.json_documents import check_documents

VOLATILE = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+Z)?"
    r"|\b(?:\d+(?:\.\d+)?(?:us|ms|s|min|h|d|MiB|KiB))(?: \d+(?:ms|s|min|h))*\b"
    r"|[0-9a-f]{24,}\S*|\d+\.\d+|\d+|token:admin|uid 0"
)
SHOWN = [
    "status", "version", "service list", "service show volume", "driver list", "driver show volume/local",
    "driver reset volume/local", "periodic list", "periodic show volume check", "periodic run volume check",
    "periodic pause volume check", "periodic resume volume check", "handler list", "lock list", "plugin list",
    "describe lamp", "describe volume", "call volume list_volumes", "call lamp numbers to=3",
    "call lamp slowly steps=2", "cast lamp bump name=x", "submit lamp build name=wall --wait",
    "volume create cmp 1MiB", "volume list", "volume show cmp", "volume delete cmp --yes", "volume show cmp",
    "config cat --running", "config cat --running log", "config diff --running", "reload", "reload --plan",
    "log-level", "log-level ostler.store debug", "log-level ostler.store --reset", "audit --limit 1 --method none.*",
    "events lamp.*.nothing --from 1 --last", "token list", "http list", "http address plain", "db check",
    "service freeze lamp --reason moving", "service show lamp", "service thaw lamp", "operation show nothing",
    "call volume get_volume name=nothing", "call lamp echo count=x", "call nothing at_all", "driver reset volume/none",
    "service show nothing",
]  # fmt: skip
NEEDS_FILES = [
    "run", "check", "config cat", "config set log.level debug", "config diff", "keys show", "db migrate",
    "db restore --empty --yes", "log", "plugin check", "plugin show volume",
]  # fmt: skip


def masked(text):
    """Return the words of a text; what differs from one moment to the next, and what has not happened yet, is V."""
    return ["V" if word == "-" else word for word in VOLATILE.sub("V", text).split()]


def shape(value):
    """Return a document with its figures and moments taken out."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return ["V"] if value is None else masked(value) if isinstance(value, str) else type(value).__name__


def documents(text):
    return [shape(json.loads(line)) for line in text.splitlines()]


@pytest.mark.parametrize("line", [*SHOWN, "call lamp echo --help"])
def test_people_read_the_same_as_over_the_socket(command_site, line):
    words = line.split()
    expected, found = command_site.over_socket(*words), command_site.over_http(*words)
    assert found.code == expected.code
    assert masked(found.out) == masked(expected.out)
    assert masked(found.err) == masked(expected.err)


@pytest.mark.parametrize("line", SHOWN)
def test_programs_read_the_same_as_over_the_socket(command_site, line):
    words = ["--json", *line.split()]
    expected, found = command_site.over_socket(*words), command_site.over_http(*words)
    assert found.code == expected.code
    assert documents(found.out) == documents(expected.out)
    assert documents(found.err) == documents(expected.err)
    if found.code == 0:
        check_documents(line.split(), found.out)


@pytest.mark.parametrize("line", ["dump", "metrics", "top --once --interval 0.1"])
def test_what_never_stands_still_is_shown(command_site, line):
    for words in (line.split(), ["--json", *line.split()]):
        found, expected = command_site.over_http(*words), command_site.over_socket(*words)
        assert (found.code, found.err) == (0, "")
        assert found.out.split()[:1] == expected.out.split()[:1] or words[0] == "--json"
    assert json.loads(found.out)


@pytest.mark.parametrize("line", NEEDS_FILES)
def test_what_needs_files_of_the_daemon_says_so(command_site, line):
    result = command_site.over_http(*line.split())
    assert result.code == 2
    assert "needs the files of the daemon" in result.err
    assert "run it on that host" in result.err


def test_the_console_is_for_the_socket_alone(command_site):
    assert "console" in command_site.over_http("console").err


def test_a_backup_comes_over_the_wire(command_site, tmp_path):
    file = tmp_path / "backup.db"
    assert command_site.over_http("db", "backup", str(file)).code == 0
    assert file.read_bytes().startswith(b"SQLite format 3\x00")


def test_an_image_is_uploaded(command_site, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(range(256)) * (12 * 1024))  # three pieces
    made = command_site.over_http("volume", "create", "uploaded", "--from", str(image))
    assert made.code == 0, made.err
    stored = [each.read_bytes() for each in (command_site.files / "volumes").rglob("*") if each.stat().st_size > 2**20]
    assert stored == [image.read_bytes()]
    assert command_site.over_http("volume", "delete", "uploaded", "--yes").code == 0


@pytest.mark.parametrize(
    ("role", "line", "code"),
    [
        ("viewer", "status", 0),
        ("viewer", "call lamp echo text=a", 0),
        ("viewer", "call lamp bump name=a", 4),
        ("viewer", "cast lamp bump name=a", 4),
        ("viewer", "submit lamp build name=a", 4),
        ("viewer", "reload", 4),
        ("viewer", "log -f", 4),
        ("operator", "call lamp bump name=a", 0),
        ("operator", "call lamp destroy", 4),
        ("operator", "token list", 4),
        ("admin", "call lamp destroy", 0),
    ],
)
def test_a_token_may_what_its_role_may(command_site, role, line, code):
    result = command_site.over_http(*line.split(), role=role)
    assert result.code == code, result.err
    assert ("needs the role" in result.err) == (code == 4)


def test_whoever_asks_is_the_token(command_site):
    assert json.loads(command_site.over_http("--json", "whoami").out)["principal"] == "token:admin"


def test_events_are_shown_as_over_the_socket(command_site):
    command_site.over_http("call", "lamp", "tell", "name=shown", "value=5")
    for words in (["--from", "1", "--count", "1"], ["--last", "--count", "1"]):
        line = ["--json", "events", "lamp.*.shown", *words]
        found, expected = command_site.over_http(*line), command_site.over_socket(*line)
        assert (found.code, found.out) == (0, expected.out)
        assert json.loads(found.out)["payload"] == {"value": 5}


def test_the_audit_log_names_the_token(command_site):
    command_site.over_http("call", "lamp", "bump", "name=audited", role="operator")
    found = command_site.over_http("audit", "--who", "token:operator", "--method", "lamp.bump", "--limit", "1")
    assert "token:operator" in found.out


def test_a_revoked_token_is_refused_at_once(command_site):
    secret = command_site.over_http("--quiet", "token", "new", "short").out
    file = command_site.files / "short.token"
    file.write_text(secret, encoding="utf-8")
    assert command_site.over_http("whoami", role="short").code == 0
    assert command_site.over_http("token", "revoke", "short").code == 0
    refused = command_site.over_http("whoami", role="short")
    assert refused.code == 4
    assert secret.strip() not in refused.err


def test_the_environment_stands_for_the_options(command_site):
    environ = {
        "OSTLER_ADDRESS": command_site.address + "/",
        "OSTLER_TOKEN_FILE": str(command_site.files / "viewer.token"),
        "OSTLER_CA_FILE": str(command_site.files / "ca.pem"),
    }
    assert "token:viewer" in command_site.run("whoami", environ=environ).out
    admin = str(command_site.files / "admin.token")
    assert "token:admin" in command_site.run("whoami", "--token-file", admin, environ=environ).out
    assert "uid" in command_site.run("--root", str(command_site.daemon.root), "whoami", environ=environ).out


def test_a_client_certificate_stands_for_a_token(command_site):
    files = command_site.files
    words = ["--address", command_site.address, "--ca-file", str(files / "ca.pem")]
    assert "cert:ann" in command_site.run(*words, "--certificate", str(files / "ann.pem"), "whoami").out
    nobody = command_site.run(*words, "whoami")
    assert nobody.code == 4
    assert "--token-file FILE" in nobody.err


def test_a_client_certificate_of_another_authority_is_refused(command_site, tmp_path):
    other = trustme.CA().issue_cert("ann", common_name="ann")
    other.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "other.pem"))
    ca = str(command_site.files / "ca.pem")
    words = ["--address", command_site.address, "--ca-file", ca, "--certificate", str(tmp_path / "other.pem")]
    refused = command_site.run(*words, "whoami")
    assert refused.code in (1, 4)  # not every server says so, and its word may be lost
    assert "--certificate" in refused.err


@pytest.mark.parametrize("option", ["--ca-file", "--certificate"])
def test_a_file_that_is_no_certificate_is_named(command_site, tmp_path, option):
    (tmp_path / "wrong.pem").write_text("nothing")
    for file in (tmp_path / "wrong.pem", tmp_path / "missing.pem"):
        result = command_site.run("--address", command_site.address, option, str(file), "whoami")
        assert result.code == 2
        assert f"cannot use {file}" in result.err


def test_a_server_is_not_believed_without_its_authority(command_site, tmp_path):
    token = ["--token-file", str(command_site.files / "admin.token")]
    refused = command_site.run("--address", command_site.address, *token, "status")
    assert refused.code == 1
    assert "is not trusted" in refused.err
    assert "--ca-file FILE" in refused.err
    # The certificate has the name localhost and the address 127.0.0.1, and no other.
    other = command_site.address.replace("localhost", "127.0.0.2")
    wrong = command_site.run("--address", other, *command_site.options()[2:], "status")
    assert wrong.code in (1, 3)
    assert "is not trusted" in wrong.err or "cannot connect" in wrong.err


def test_plain_http_is_for_this_host(command_site):
    token = ["--token-file", str(command_site.files / "viewer.token")]
    assert command_site.run("--address", command_site.plain_address, *token, "status").code == 0
    refused = command_site.run("--address", "http://node2.example:80/v1", *token, "status")
    assert refused.code == 2
    assert "others could read" in refused.err


def test_wrong_addresses_say_what_is_wrong(command_site):
    def error(address):
        result = command_site.run("--address", address, *command_site.options()[2:], "status")
        assert result.code
        return result.err

    root = command_site.address.removesuffix("/v1")
    assert "the path of the API" in error(root)
    assert "the path of the API" in error(root + "/v2")
    assert "no TLS" in error(command_site.plain_address.replace("http:", "https:"))
    token = command_site.options()[2:4]
    plain = command_site.run("--address", root.replace("https:", "http:") + "/v1", *token, "status")
    assert plain.code == 1
    assert "cannot connect" in error("https://localhost:1/v1")


def test_the_timeout_of_a_stream_is_that_of_each_item(command_site):
    words = ["--timeout", "0.3", "call", "lamp", "tick", "name=timed"]
    for run in (command_site.over_socket, command_site.over_http):
        result = run(*words)
        assert result.code == 1
        assert result.out in ("1\n", "")
        assert "within 300ms" in result.err or "deadline" in result.err


def test_ctrl_c_ends_the_work_on_the_server(command_site):
    process = subprocess.Popen(
        [OSTLER, *command_site.options(), "call", "lamp", "wait", "name=ctrl-c"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        command_site.daemon.wait_log("wait ctrl-c has begun")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_TIMEOUT)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    command_site.daemon.wait_log("wait ctrl-c was cancelled")


def test_events_are_followed_until_ctrl_c(command_site):
    process = subprocess.Popen(
        [OSTLER, *command_site.options("viewer"), "--json", "events", "lamp.*.followed"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        # Whoever subscribes sees what is published afterwards: say it until it is seen.
        while not select.select([process.stdout], [], [], 0.1)[0]:
            assert process.poll() is None
            command_site.daemon.call("lamp", "tell", name="followed")
        event = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_TIMEOUT)
    finally:
        process.kill()
        process.wait()
    assert event["name"] == "followed"
    assert (process.returncode, err) == (0, "")
