"""A daemon given by the address of its REST API: what the options and the environment say of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from ostler.errors import InvalidInput
from ostler.files import read_bounded
from ostler.redaction import TOKEN_MARK

HTTP_OPTIONS = {
    "--token-file": "OSTLER_TOKEN_FILE",
    "--ca-file": "OSTLER_CA_FILE",
    "--certificate": "OSTLER_CERTIFICATE",
    "--certificate-key": "OSTLER_CERTIFICATE_KEY",
}
"""The options of such an address, and the variables that stand for them."""
_TLS_OPTIONS = ("--ca-file", "--certificate", "--certificate-key")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_TOKEN_FILE_SIZE = 4096
_EXAMPLE = "for example --address https://node2.example:8443/v1"


class HttpDaemon(NamedTuple):
    """A daemon that is reached by its REST API.

    Attributes:
        address: The address as it was given, without a slash at its end.
        host: The name or number of its host.
        port: The port.
        path: The path of the mount, empty for `/`.
        is_tls: Whether it is `https://`.
        token_file: The file of the token, None without one.
        ca_file: The certificates of the authorities that may have signed the server's; None for those of the system.
        certificate: The client's own certificate, None without one.
        certificate_key: The key of that certificate; None if the file of the certificate has it.
    """

    address: str
    host: str
    port: int
    path: str
    is_tls: bool
    token_file: Path | None = None
    ca_file: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None

    def read_token(self) -> str:
        """Return the token, empty without one.

        Raises:
            InvalidInput: The file cannot be read, or has no token.
        """
        return "" if self.token_file is None else _read_token(self.token_file)


def find_http_daemon(address: str, options: Mapping[str, str], environ: Mapping[str, str]) -> HttpDaemon:
    """Return the daemon that an address means; no file is read, nothing is connected.

    Args:
        address: `https://HOST:PORT/PATH`, or `http://` of this host.
        options: The options that were given, by name.
        environ: The environment, used for options that were not given.

    Raises:
        InvalidInput: The address is not valid, or does not go with the options.
    """
    parts = _split(address)
    values = {name: options.get(name) or environ.get(variable, "") for name, variable in HTTP_OPTIONS.items()}
    is_tls = parts.scheme == "https"
    if not is_tls:
        given = [name for name in _TLS_OPTIONS if options.get(name)]
        if given:
            raise InvalidInput(f"{', '.join(given)} needs an address with https://", hint=_EXAMPLE)
        if not is_loopback(parts.hostname or ""):
            raise _plain_text_error(address)
    elif values["--certificate-key"] and not values["--certificate"]:
        raise InvalidInput("--certificate-key needs `--certificate`", hint="give the file of the certificate as well")
    tls_files = (_path(values[name]) if is_tls else None for name in _TLS_OPTIONS)
    return HttpDaemon(
        address.rstrip("/"),
        parts.hostname or "",
        parts.port or _DEFAULT_PORTS[parts.scheme],
        parts.path.rstrip("/"),
        is_tls,
        _token_path(values["--token-file"]),
        *tls_files,
    )


def is_loopback(host: str) -> bool:
    """Return whether a host is this one by its name or number: nothing that is sent there leaves it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _plain_text_error(address: str) -> InvalidInput:
    return InvalidInput(
        f"{address} is not encrypted and leaves this host: others could read what is sent, the token too",
        hint="use https://, or a tunnel to http://127.0.0.1:PORT",
    )


def _split(address: str) -> SplitResult:
    # `urlsplit` drops some control characters without a word.
    if not all("!" <= each <= "~" for each in address):
        raise InvalidInput("the address has characters that no URL has", hint=_EXAMPLE)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"the address is not a valid URL: {error}", hint=_EXAMPLE) from None
    if parts.username is not None or parts.password is not None:
        # Not shown again: it may be a token.
        raise InvalidInput(
            "the address must not have a user or password: other users can read command lines",
            hint="give a token with --token-file FILE",
        )
    if not parts.hostname or port == 0:
        raise InvalidInput(f"{address} names no host and port", hint=_EXAMPLE)
    if parts.query or parts.fragment or "?" in address or "#" in address:
        raise InvalidInput("the address must not have a query or fragment", hint=_EXAMPLE)
    return parts


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _token_path(text: str) -> Path | None:
    file = _path(text)
    if file is not None and text.startswith(TOKEN_MARK) and not file.exists():
        # It may be the token itself, which must not appear in an error.
        raise InvalidInput(
            "the token must be given as the path of its file: other users can read command lines",
            hint="--token-file FILE; `ostler token new NAME > FILE` writes one",
        )
    return file


def _read_token(file: Path) -> str:
    hint = "`ostler token new NAME > FILE` on that host writes one"
    try:
        found = read_bounded(file, _MAX_TOKEN_FILE_SIZE).decode("ascii").strip()
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not the file of a token", hint=hint) from None
    except OSError as error:
        raise InvalidInput(f"cannot read the token from {file}: {error.strerror or error}", hint=hint) from None
    if not found or not all("!" <= each <= "~" for each in found):
        raise InvalidInput(f"{file} is not the file of a token: it must have a single word", hint=hint)
    return found
