"""Secrets that systemd hands over in a folder that only the service can read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ostler.errors import ConfigurationError
from ostler.files import FileRefused, read_regular

MAX_SIZE = 1024 * 1024
"""Bytes; the most that systemd hands over as one credential."""


def credential(name: str, environ: Mapping[str, str]) -> bytes:
    """Return a credential, byte for byte. Any thread.

    Args:
        name: Its name in `LoadCredential=` or `SetCredential=` of the unit.
        environ: The environment, with `CREDENTIALS_DIRECTORY`.

    Raises:
        ConfigurationError: The unit hands over no credentials, or none of this name, or it cannot be read. The
            message never holds anything of the secret.
    """
    if not name or "/" in name or name in {".", ".."}:
        raise ConfigurationError(f"{name!r} cannot be the name of a credential", hint="use a plain name, without /")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    advice = f"add `LoadCredential={name}:/path/to/file` to the [Service] section of the unit"
    if not folder:
        raise ConfigurationError(f"the credential {name!r} is wanted, but systemd handed over none", hint=advice)
    try:
        return read_regular(Path(folder) / name, MAX_SIZE).data
    except FileNotFoundError:
        raise ConfigurationError(f"systemd handed over no credential {name!r}", hint=advice) from None
    except FileRefused as error:
        raise ConfigurationError(f"the credential {name!r} {error.strerror}", hint=advice) from None
    except OSError as error:
        raise ConfigurationError(f"the credential {name!r} cannot be read: {error.strerror}", hint=advice) from None
