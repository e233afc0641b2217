"""Reads the secrets that the configuration refers to.

A secret is never written in a configuration file. The file has `{credential = "name"}`, for a file of that name in
`$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`), or `{file = "/path"}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from ostler.config.options import OptionsModel, option_metadata
from ostler.config.toml_positions import KeyPath
from ostler.config.type_descriptions import ConstrainedType, is_secret_type, type_of_field, type_of_item
from ostler.files import UnreadableFile, read_regular
from ostler.redaction import SECRETS

MASK = "***"
"""The text that is shown instead of a secret."""

PLACEHOLDER = "*" * 32
"""The value that a model gets instead of a secret that is missing or was not read."""
_MAX_FILE_SIZE = 1024 * 1024
_REFERENCE_HINT = 'write {credential = "name"} or {file = "/path"}'


class SecretReader:
    """Replaces the references to secrets in a table by their values.

    Args:
        environ: The environment, for `$CREDENTIALS_DIRECTORY`.
        offline: Do not read credentials if `$CREDENTIALS_DIRECTORY` is not set, as they exist only inside the unit, and
            ignore a file that this user is not allowed to read, because the daemon's user may be.
        as_daemon: This user is the daemon's: files that it cannot read are faults, also offline.
    """

    def __init__(self, environ: Mapping[str, str], *, offline: bool = False, as_daemon: bool = False) -> None:
        self._directory = environ.get("CREDENTIALS_DIRECTORY", "")
        self._skip_credentials = offline and not (as_daemon and self._directory)
        self._ignore_permission = offline and not as_daemon
        self.problems: list[tuple[KeyPath, str]] = []
        """Faults of references: the path below the table, and a sentence."""
        self.placeholders: set[KeyPath] = set()
        """The paths of placeholders, whose errors in a model are ignored."""

    def reset(self) -> None:
        """Discard the faults and placeholders of the previous table."""
        self.problems.clear()
        self.placeholders.clear()

    def resolve(self, table: Mapping[str, Any], model: type[OptionsModel], path: KeyPath = ()) -> dict[str, Any]:
        """Return a copy of a table with its secrets; placeholders replace those that are missing or not read."""
        resolved = dict(table)
        for name, field in model.model_fields.items():
            if name in table:
                resolved[name] = self._resolve_value(table[name], type_of_field(field), (*path, name))
        return resolved

    def _resolve_value(self, value: Any, kind: ConstrainedType, path: KeyPath) -> Any:
        """Return a value with its secrets, at any depth of tables and lists."""
        if isinstance(value, list) and value and type_of_item(kind, 0) is not None:
            items: Any = list(enumerate(value))
        elif is_secret_type(kind):
            return self._resolve_secret(value, path)
        elif isinstance(value, dict):
            items = list(value.items())
        else:
            return value
        found = [(key, self._resolve_item(item, type_of_item(kind, key), (*path, key))) for key, item in items]
        return dict(found) if isinstance(value, dict) else [item for _, item in found]

    def _resolve_item(self, value: Any, kind: ConstrainedType | None, path: KeyPath) -> Any:
        return value if kind is None else self._resolve_value(value, kind, path)

    def _resolve_secret(self, reference: object, path: KeyPath) -> str:
        secret, wrong = self._read_reference(reference)
        # A secret that was written in the file is refused, and must be redacted nevertheless.
        self._register_secret(reference if isinstance(reference, str) else secret)
        if wrong:
            self.problems.append((path, wrong))
        if wrong or secret is None:
            self.placeholders.add(path)
            return PLACEHOLDER
        return secret

    def _read_reference(self, reference: object) -> tuple[str | None, str]:
        if not isinstance(reference, dict) or len(reference) != 1:
            return None, f"a secret must not be written in the configuration; {_REFERENCE_HINT}"
        ((source, target),) = reference.items()
        if source not in {"credential", "file"} or not isinstance(target, str) or not target:
            return None, f"not a valid reference to a secret; {_REFERENCE_HINT}"
        if source == "credential":
            return self._read_credential(target)
        if not target.startswith("/"):
            return None, f'the path of the secret file "{target}" is not absolute'
        return _read_secret_file(FilePath(target), ignore_permission=self._ignore_permission)

    @staticmethod
    def _register_secret(secret: str | None) -> None:
        """Redact the secret in all output of this process from now on."""
        if secret is not None:
            SECRETS.add(secret)

    def _read_credential(self, name: str) -> tuple[str | None, str]:
        if "/" in name or name in {".", ".."}:
            return None, f'"{name}" is not a valid credential name'
        if self._skip_credentials:
            return None, ""
        if not self._directory:
            return None, f'credential "{name}" not found: $CREDENTIALS_DIRECTORY is not set; {_unit_hint(name)}'
        file = FilePath(self._directory, name)
        if not file.exists():
            return None, f'credential "{name}" not found in {self._directory}; {_unit_hint(name)}'
        return _read_secret_file(file)


def _unit_hint(name: str) -> str:
    return f"add `LoadCredential={name}:/path/to/it` to the unit"


def _read_secret_file(file: FilePath, *, ignore_permission: bool = False) -> tuple[str | None, str]:
    try:
        content = read_regular(file, _MAX_FILE_SIZE).data
    except PermissionError as error:
        return None, "" if ignore_permission else f"cannot read the secret file {file}: {error.strerror}"
    except UnreadableFile as error:
        return None, f"the secret file {file} {error.strerror}"
    except FileNotFoundError:
        return None, f"secret file {file} not found"
    except OSError as error:
        return None, f"cannot read the secret file {file}: {error.strerror}"
    try:
        return content.decode().removesuffix("\n"), ""
    except UnicodeDecodeError:
        return None, f"the secret file {file} is not valid text"


def is_secret_option(model: type[OptionsModel], name: str) -> bool:
    """Return whether an option's value must be masked."""
    field = model.model_fields.get(name)
    return field is not None and (option_metadata(field).secret or is_secret_type(type_of_field(field)))
