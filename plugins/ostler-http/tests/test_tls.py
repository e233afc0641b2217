"""TLS: certificates that are checked with the configuration, replaced by a reload, and asked of clients."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from http_harness import configuration, read_until, status_of

from ostler import ConfigurationError

NOW = dt.datetime.now(tz=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


class Files:
    """The files that the option `tls` names."""

    def __init__(self, path, ca):
        self.path = path
        self.ca = ca

    def issue(self, **arguments):
        issued = self.ca.issue_cert("localhost", **arguments)
        issued.cert_chain_pems[0].write_to_path(str(self.path / "cert.pem"))
        issued.private_key_pem.write_to_path(str(self.path / "key.pem"))
        return issued

    def options(self, more=""):
        return (
            'listen = ["127.0.0.1:0"]\n'
            f'tls = {{ certificate = "{self.path}/cert.pem", key = {{ file = "{self.path}/key.pem" }}{more} }}'
        )


@pytest.fixture
def files(tmp_path, ca):
    made = Files(tmp_path, ca)
    made.issue()
    (tmp_path / "key.pem").chmod(0o600)
    return made


def client_context(ca, certificate=None):
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def connect(web, context):
    plain = socket.create_connection(("127.0.0.1", web.port()), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


def ask(connection):
    connection.sendall(b"GET /echo HTTP/1.1\r\nhost: localhost\r\n\r\n")
    return read_until(connection, b"\r\n\r\n")


def serial(connection):
    return connection.getpeercert()["serialNumber"]


def test_it_serves_with_a_certificate(serve, files, ca):
    with serve(options=files.options()) as web, connect(web, client_context(ca)) as connection:
        assert web.address().startswith("https://127.0.0.1:")
        assert status_of(ask(connection)) == 401


def test_a_reload_reads_the_certificate_again_and_drops_no_connection(serve, files, ca):
    with serve(options=files.options()) as web, connect(web, client_context(ca)) as before:
        files.issue()
        web.host.reload(configuration(options=files.options()))
        with connect(web, client_context(ca)) as after:
            assert serial(after) != serial(before)
            assert status_of(ask(after)) == 401
        assert status_of(ask(before)) == 401


def test_a_reload_while_nobody_is_connected_changes_all_that_others_change(serve, files, ca):
    with serve(options='listen = ["127.0.0.1:0"]') as web:
        web.host.reload(configuration(options=files.options()))
        assert web.address().startswith("https://127.0.0.1:")
        with connect(web, client_context(ca)) as first:
            assert status_of(ask(first)) == 401
            known = serial(first)
        web.host.wait_for(lambda: not web.status()["connections"], "no connection")
        files.issue()
        web.host.reload(configuration(options=f"{files.options()}\nlimits = {{ max_headers = 1 }}"))
        with connect(web, client_context(ca)) as second:
            assert serial(second) != known
            assert web.status()["connections"] == 1
            second.sendall(b"GET /echo HTTP/1.1\r\nhost: localhost\r\nx-one: 1\r\nx-two: 2\r\n\r\n")
            assert status_of(read_until(second, b"\r\n\r\n")) == 431


def test_a_client_certificate_says_who_asks(serve, files, ca):
    client = ca.issue_cert(common_name="alice")
    (files.path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    with serve(options=files.options(f', client_ca = "{files.path}/ca.pem"')) as web:
        with connect(web, client_context(ca, client)) as connection:
            answer = ask(connection) + read_until(connection, b"}")
        assert status_of(answer) == 403
        assert b"cert:alice has no role" in answer
        with connect(web, client_context(ca)) as connection:
            assert status_of(ask(connection)) == 401


@pytest.mark.parametrize(
    ("origin", "refused"),
    [("https://evil.example", True), ("null", True), ("https://localhost:1", True), ("https://localhost", False)],
)
def test_pages_of_other_sites_do_not_use_the_certificate_of_a_browser(serve, files, ca, origin, refused):
    client = ca.issue_cert(common_name="alice")
    (files.path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    with serve(options=files.options(f', client_ca = "{files.path}/ca.pem"')) as web:
        with connect(web, client_context(ca, client)) as connection:
            connection.sendall(f"POST /echo HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\r\n".encode())
            answer = read_until(connection, b"}")
            assert (b"a page of another site" in answer) == refused
            assert (b"cert:alice has no role" in answer) != refused
            assert b"www-authenticate" not in answer
        assert web.refused("cross_site") == refused


def test_a_client_certificate_of_others_is_refused_at_the_handshake(serve, files, ca):
    (files.path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    stranger = trustme.CA().issue_cert(common_name="alice")
    with serve(options=files.options(f', client_ca = "{files.path}/ca.pem", client_required = true')) as web:
        for certificate in (stranger, None):
            # With TLS 1.3 the client learns of it when it reads.
            with (
                pytest.raises((ssl.SSLError, ConnectionError, AssertionError)),
                connect(web, client_context(ca, certificate)) as connection,
            ):
                ask(connection)
        web.wait_refused("tls_handshake", 2)


def test_an_old_version_of_tls_is_refused(serve, files, ca):
    with serve(options=files.options(', minimum_version = "1.3"')) as web:
        context = client_context(ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            connect(web, context)


def test_a_client_without_tls_gets_nothing(serve, files):
    with serve(options=files.options()) as web, web.connect() as connection:
        connection.sendall(b"GET /open HTTP/1.1\r\nhost: x\r\n\r\n")
        web.wait_refused("tls_handshake")


def test_a_handshake_that_does_not_go_on_is_ended(serve, files):
    with serve(options=f"{files.options()}\nlimits = {{ header_timeout = 0.1 }}") as web, web.connect():
        web.wait_refused("tls_handshake")


def test_clients_that_do_not_shake_hands_keep_nobody_out(serve, files, ca):
    options = f"{files.options()}\nlimits = {{ max_connections = 5, header_timeout = 60 }}"
    with serve(options=options) as web, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(web.connect()) for _ in range(10)]
        web.wait_refused("evicted", 5)
        with connect(web, client_context(ca)) as connection:
            assert status_of(ask(connection)) == 401
        assert web.refused("evicted") == 6
        assert silent[0].recv(1) == b""
        web.host.wait_for(lambda: web.status()["connections"] == 4, "the end of the others")


@pytest.mark.parametrize(
    ("spoil", "where", "what"),
    [
        ("missing", "certificate", "cannot be read: No such file"),
        ("text", "certificate", "contains no certificate in PEM"),
        ("expired", "certificate", "has expired"),
        ("early", "certificate", "is not valid yet"),
        ("other key", "key", "does not belong to the certificate"),
        ("no key", "key", "is not a private key in PEM"),
        ("passphrase", "key", "has a passphrase"),
        ("relative", "certificate", "is not absolute"),
        ("roots", "client_ca", "contains no certificate in PEM"),
    ],
)
def test_certificates_that_cannot_be_used_are_errors_of_the_configuration(serve, files, spoil, where, what):
    options = files.options()
    if spoil == "missing":
        (files.path / "cert.pem").unlink()
    elif spoil == "text":
        (files.path / "cert.pem").write_text("certificate\n")
    elif spoil == "expired":
        files.issue(not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    elif spoil == "early":
        files.issue(not_before=NOW + DAY, not_after=NOW + 9 * DAY)
    elif spoil == "other key":
        (files.path / "key.pem").write_bytes(files.ca.issue_cert("other").private_key_pem.bytes())
    elif spoil == "no key":
        (files.path / "key.pem").write_text("key\n")
    elif spoil == "passphrase":
        (files.path / "key.pem").write_bytes(encrypted_key())
    elif spoil == "relative":
        options = options.replace(str(files.path) + "/cert.pem", "cert.pem")
    else:
        (files.path / "ca.pem").write_text("roots\n")
        options = files.options(f', client_ca = "{files.path}/ca.pem"')
    with pytest.raises(ConfigurationError) as caught, serve(options=options):
        pytest.fail("it has started")
    assert f":4:{column_of(options, where)}: services.web.tls.{where}: " in str(caught.value)
    assert what in str(caught.value)


def column_of(options, where):
    line = options.splitlines()[1]
    return line.index(f"{where} = ") + len(f"{where} = ") + 1


def test_a_reload_with_a_bad_certificate_changes_nothing(serve, files, ca):
    with serve(options=files.options()) as web:
        with connect(web, client_context(ca)) as connection:
            before = serial(connection)
        (files.path / "cert.pem").write_text("certificate\n")
        with pytest.raises(ConfigurationError, match="contains no certificate"):
            web.host.reload(configuration(options=files.options()))
        with connect(web, client_context(ca)) as connection:
            assert serial(connection) == before


def test_a_key_is_never_shown(serve, files):
    with serve(options=files.options()) as web:
        shown = json.dumps(web.status()) + str(web.host.manager("web").options)
        assert "PRIVATE KEY" not in shown


def encrypted_key():
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(b"passphrase")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
