"""A daemon given by its address, with keys, tokens and certificates from files: `--address` and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ostler.errors import InvalidInput
from ostler.files import read_bounded

if TYPE_CHECKING:
    from ostler.cli.http_client.address import HttpDaemon

_SOCKET_OPTIONS = ("--server-key", "--secret-key")
_KEY_LENGTH = 40
"""Length of a key in characters."""
_MAX_KEY_FILE_SIZE = 4096
"""Maximum size in bytes of a key file, including what else `ostler keys show` prints."""


class RemoteDaemon(NamedTuple):
    """A remote daemon, and the keys by which it and this client authenticate each other.

    Args:
        address: Its address for calls.
        server_key: Its public key, empty for a unix socket.
        secret_key: The file of this client's secret key, None for a unix socket.
    """

    address: str
    server_key: str = ""
    secret_key: Path | None = None


AnyRemoteDaemon: TypeAlias = "RemoteDaemon | HttpDaemon"
"""A daemon that is reached by a socket, or by its REST API."""


def find_remote_daemon(
    options: Mapping[str, str], environ: Mapping[str, str], *, has_root: bool
) -> AnyRemoteDaemon | None:
    """Return the daemon given by an address; None without an address.

    Args:
        options: The options that were given, by name.
        environ: The environment, used for options that were not given.
        has_root: Whether `--root` was given, which overrides an address in the environment.

    Raises:
        InvalidInput: The options contradict each other, or a file cannot be read.
    """
    address = options.get("--address") or ("" if has_root else environ.get("OSTLER_ADDRESS", ""))
    if not address:
        if options:
            raise InvalidInput(f"{', '.join(options)} needs `--address`", hint="for example --address tcp://node2:7890")
        return None
    if has_root:
        raise InvalidInput("--root and --address cannot be combined", hint="give only one of them")
    if address.lower().startswith(("https://", "http://")):
        return _http_daemon(address, options, environ)
    others = [name for name in options if name not in ("--address", *_SOCKET_OPTIONS)]
    if others:
        raise InvalidInput(
            f"{', '.join(others)} needs an address with https://", hint="for example --address https://node2:8443/v1"
        )
    if not address.startswith("tcp://"):
        return RemoteDaemon(address)
    server = options.get("--server-key") or environ.get("OSTLER_SERVER_KEY", "")
    secret = options.get("--secret-key") or environ.get("OSTLER_SECRET_KEY", "")
    if not server or not secret:
        raise InvalidInput(
            f"{address} is a network address, which needs keys",
            hint="give --server-key KEY, from `ostler keys show` there, and --secret-key FILE, from `ostler keys new`",
        )
    return RemoteDaemon(address, _read_public_key(server), _secret_key_path(secret))


def _http_daemon(address: str, options: Mapping[str, str], environ: Mapping[str, str]) -> HttpDaemon:
    from ostler.cli.http_client.address import find_http_daemon  # 10 ms: only for such an address

    others = [name for name in _SOCKET_OPTIONS if name in options]
    if others:
        raise InvalidInput(
            f"{', '.join(others)} needs an address with tcp://",
            hint="callers over HTTP have a token: --token-file FILE",
        )
    return find_http_daemon(address, options, environ)


def _read_public_key(text: str) -> str:
    """Return a public key: the text itself, or the first line of that file (`ostler keys show` prints more)."""
    # A key may begin with a slash as well.
    if len(text) == _KEY_LENGTH and not (text.startswith("/") and Path(text).exists()):
        return text
    try:
        found = read_bounded(Path(text).expanduser(), _MAX_KEY_FILE_SIZE).decode("ascii")
        return found.strip().partition("\n")[0].rstrip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"the server's key is neither {_KEY_LENGTH} characters nor the file {text}: {why}") from None


def _secret_key_path(text: str) -> Path:
    file = Path(text).expanduser()
    if len(text) == _KEY_LENGTH and not file.exists():
        # It may be the key itself: other users can read command lines, and it must not appear in an error.
        raise InvalidInput("the secret key must be given as the path of its file", hint="--secret-key FILE")
    return file
