"""A daemon that is meant by its address, with keys from files: `--address`, `--server-key`, `--secret-key`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ostler.errors import InvalidInput
from ostler.files import read_bounded

_KEY = 40
"""Characters of a key."""
_LONGEST = 4096
"""Bytes of a file with a key, and what `ostler keys show` says beside it."""


class Remote(NamedTuple):
    """Which daemon is meant, and by which keys it and we know each other.

    Args:
        address: Its address for calls.
        server_key: Its public key, empty for a unix socket.
        secret_key: The file of our own secret key, None for a unix socket.
    """

    address: str
    server_key: str = ""
    secret_key: Path | None = None


def find(typed: Mapping[str, str], environ: Mapping[str, str], *, rooted: bool) -> Remote | None:
    """Return the daemon that is meant by an address; None when none is.

    Args:
        typed: The options that were given, by name.
        environ: The environment, which counts where an option was not given.
        rooted: Whether `--root` was given, which counts more than an address in the environment.

    Raises:
        InvalidInput: The options contradict each other, or a file cannot be read.
    """
    address = typed.get("--address") or ("" if rooted else environ.get("OSTLER_ADDRESS", ""))
    if not address:
        if typed:
            raise InvalidInput(f"{', '.join(typed)} goes with `--address`", hint="such as tcp://node2:7890")
        return None
    if rooted:
        raise InvalidInput("--root and --address each name a daemon", hint="give one of them")
    if not address.startswith("tcp://"):
        return Remote(address)
    server = typed.get("--server-key") or environ.get("OSTLER_SERVER_KEY", "")
    secret = typed.get("--secret-key") or environ.get("OSTLER_SECRET_KEY", "")
    if not server or not secret:
        raise InvalidInput(
            f"{address} is on a network, where nobody talks without keys",
            hint="--server-key KEY, as `ostler keys show` prints there, and --secret-key FILE, from `ostler keys new`",
        )
    return Remote(address, _public(server), _file(secret))


def _public(text: str) -> str:
    """Return a public key: the text itself, or the first line of that file (`ostler keys show` says more)."""
    # A key may begin with a slash too.
    if len(text) == _KEY and not (text.startswith("/") and Path(text).exists()):
        return text
    try:
        found = read_bounded(Path(text).expanduser(), _LONGEST).decode("ascii")
        return found.strip().partition("\n")[0].rstrip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"the server's key is neither {_KEY} characters nor the file {text}: {why}") from None


def _file(text: str) -> Path:
    file = Path(text).expanduser()
    if len(text) == _KEY and not file.exists():
        # It may be the key itself: others can read command lines, and it must not go on into an error.
        raise InvalidInput("the secret key is given as the path of its file, never itself", hint="--secret-key FILE")
    return file
