"""What the options and the environment say of a daemon that is reached by its REST API."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.cli.http_client.address import find_http_daemon, is_loopback
from ostler.cli.remote_daemon import find_remote_daemon
from ostler.errors import InvalidInput
from ostler.redaction import TOKEN_MARK


def test_an_address_has_host_port_and_path():
    found = find_http_daemon("https://Node2.example:8443/v1/", {"--token-file": "/t"}, {})
    assert (found.host, found.port, found.path, found.is_tls) == ("node2.example", 8443, "/v1", True)
    assert (found.address, found.token_file) == ("https://Node2.example:8443/v1", Path("/t"))
    found = find_http_daemon("http://[::1]", {}, {})
    assert (found.host, found.port, found.path, found.token_file) == ("::1", 80, "", None)
    assert find_http_daemon("https://a", {}, {}).port == 443


def test_options_count_more_than_the_environment():
    environ = {
        "OSTLER_ADDRESS": "https://a/v1", "OSTLER_TOKEN_FILE": "/env", "OSTLER_CA_FILE": "/ca",
        "OSTLER_CERTIFICATE": "/cert", "OSTLER_CERTIFICATE_KEY": "~/key",
    }  # fmt: skip
    found = find_remote_daemon({"--token-file": "/typed"}, environ, has_root=False)
    assert found.token_file == Path("/typed")
    assert (found.ca_file, found.certificate) == (Path("/ca"), Path("/cert"))
    assert found.certificate_key == Path("~/key").expanduser()
    assert find_remote_daemon({}, environ, has_root=True) is None
    plain = find_remote_daemon({}, {**environ, "OSTLER_ADDRESS": "http://localhost:80"}, has_root=False)
    assert (plain.ca_file, plain.certificate) == (None, None)


@pytest.mark.parametrize(
    ("address", "options", "error"),
    [
        ("http://node2:80/v1", {"--token-file": "/t"}, "others could read"),
        ("http://192.0.2.7/v1", {}, "others could read"),
        ("http://127.0.0.1.example.org/v1", {}, "others could read"),
        ("http://127.0.0.1/v1", {"--ca-file": "/ca"}, "--ca-file needs an address with https://"),
        ("https://user:secret@a/v1", {}, "must not have a user or password"),
        ("https://secret@a/v1", {}, "must not have a user or password"),
        ("https://a/v1?token=secret", {}, "query or fragment"),
        ("https://a/v1#secret", {}, "query or fragment"),
        ("https://a:99999/v1", {}, "not a valid URL"),
        ("https://a:0/v1", {}, "names no host and port"),
        ("https:///v1", {}, "names no host"),
        ("https://[::1/v1", {}, "not a valid URL"),
        ("https://a/v1\r\nX: y", {}, "characters that no URL has"),
        ("https://ä/v1", {}, "characters that no URL has"),
        ("https://a/v1", {"--certificate-key": "/k"}, "--certificate-key needs `--certificate`"),
        ("https://a/v1", {"--server-key": "x"}, "--server-key needs an address with tcp://"),
        ("tcp://a:1", {"--token-file": "/t"}, "--token-file needs an address with https://"),
        ("ipc:///a", {"--ca-file": "/t"}, "--ca-file needs an address with https://"),
    ],
)
def test_what_contradicts_itself_is_refused(address, options, error):
    with pytest.raises(InvalidInput, match=error) as caught:
        find_remote_daemon({"--address": address, **options}, {}, has_root=False)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


def test_a_token_in_place_of_its_file_is_refused_and_not_said_again():
    canary = TOKEN_MARK + "canary" * 7
    with pytest.raises(InvalidInput, match="path of its file") as caught:
        find_http_daemon("https://a/v1", {"--token-file": canary}, {})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("words", [["--token", "canary", "status"], ["--token=canary", "status"]])
def test_a_token_on_the_command_line_is_refused(ostler, words):
    result = ostler("--address", "https://a/v1", *words)
    assert result.code == 2
    assert "--token-file FILE" in result.err
    assert "canary" not in result.err


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe", b"a\x00b", b"x" * 5000])
def test_a_file_without_a_token_is_refused(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    daemon = find_http_daemon("https://a/v1", {"--token-file": str(tmp_path / "token")}, {})
    with pytest.raises(InvalidInput, match="token") as caught:
        daemon.read_token()
    assert "ostler token new" in caught.value.hint


def test_a_token_is_read_from_its_file(tmp_path):
    (tmp_path / "token").write_text("abc\n")
    options = {"--token-file": str(tmp_path / "token")}
    assert find_http_daemon("https://a/v1", options, {}).read_token() == "abc"
    assert find_http_daemon("https://a/v1", {}, {}).read_token() == ""
    (tmp_path / "token").unlink()
    with pytest.raises(InvalidInput, match="No such file"):
        find_http_daemon("https://a/v1", options, {}).read_token()


def test_this_host_is_known_by_its_names():
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"]))
    assert not any(map(is_loopback, ["", "0.0.0.0", "10.0.0.1", "localhost.example", "::", "example"]))
