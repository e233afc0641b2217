"""Secrets: where the configuration names them, and how they are read.

A secret never stands in a configuration file. The file says `{credential = "name"}`, which is a file of that name in
`$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`), or `{file = "/path"}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from ostler.config.expectations import Kind, holds_secret, item_kind, kind_of
from ostler.config.options import OptionsModel, facts_of
from ostler.config.positions import Path
from ostler.files import FileRefused, read_regular
from ostler.redaction import SECRETS

MASK = "***"
"""What stands for a secret wherever a configuration is shown."""

PLACEHOLDER = "*" * 32
"""What a model is given instead of a secret that is not there, or not read."""
_SIZE_MAX = 1024 * 1024
_HOW = 'write {credential = "name"} or {file = "/path"}'


class SecretReader:
    """Replaces the references to secrets in a table by the secrets.

    Args:
        environ: The environment, for `$CREDENTIALS_DIRECTORY`.
        offline: Do not look for credentials, which exist only inside the unit, and pass by a file that this user may
            not read, which the daemon's may.
    """

    def __init__(self, environ: Mapping[str, str], *, offline: bool = False) -> None:
        self._directory = environ.get("CREDENTIALS_DIRECTORY", "")
        self._offline = offline
        self.problems: list[tuple[Path, str]] = []
        """What was wrong with a reference: the path below the table, and a sentence."""
        self.placeholders: set[Path] = set()
        """Where placeholders stand: what a model thinks of them does not matter."""

    def begin(self) -> None:
        """Forget what was noted of the table before."""
        self.problems.clear()
        self.placeholders.clear()

    def resolve(self, table: Mapping[str, Any], model: type[OptionsModel], path: Path = ()) -> dict[str, Any]:
        """Return a copy of a table with its secrets; a placeholder stands for one that is not there or not read."""
        resolved = dict(table)
        for name, field in model.model_fields.items():
            if name in table:
                resolved[name] = self._value(table[name], kind_of(field), (*path, name))
        return resolved

    def _value(self, value: Any, kind: Kind, path: Path) -> Any:
        """Return a value with its secrets, however deep in tables and lists they are."""
        if isinstance(value, list) and value and item_kind(kind, 0) is not None:
            items: Any = list(enumerate(value))
        elif holds_secret(kind):
            return self._secret(value, path)
        elif isinstance(value, dict):
            items = list(value.items())
        else:
            return value
        found = [(key, self._item(item, item_kind(kind, key), (*path, key))) for key, item in items]
        return dict(found) if isinstance(value, dict) else [item for _, item in found]

    def _item(self, value: Any, kind: Kind | None, path: Path) -> Any:
        return value if kind is None else self._value(value, kind, path)

    def _secret(self, reference: object, path: Path) -> str:
        secret, wrong = self._read(reference)
        # One that was written there itself is refused, and is a secret all the same.
        self._note(reference if isinstance(reference, str) else secret)
        if wrong:
            self.problems.append((path, wrong))
        if wrong or secret is None:
            self.placeholders.add(path)
            return PLACEHOLDER
        return secret

    def _read(self, reference: object) -> tuple[str | None, str]:
        if not isinstance(reference, dict) or len(reference) != 1:
            return None, f"a secret does not stand in the configuration itself; {_HOW}"
        ((source, target),) = reference.items()
        if source not in {"credential", "file"} or not isinstance(target, str) or not target:
            return None, f"this names no secret; {_HOW}"
        if source == "credential":
            return self._credential(target)
        if not target.startswith("/"):
            return None, f'the secret\'s file "{target}" is no absolute path'
        return _content(FilePath(target), lenient=self._offline)

    @staticmethod
    def _note(secret: str | None) -> None:
        """Have the secret looked for in whatever leaves this process, from now on."""
        if secret is not None:
            SECRETS.add(secret)

    def _credential(self, name: str) -> tuple[str | None, str]:
        if "/" in name or name in {".", ".."}:
            return None, f'"{name}" is no name of a credential'
        if self._offline:
            return None, ""
        if not self._directory:
            return None, f'there is no credential "{name}": $CREDENTIALS_DIRECTORY is not set; {_unit_hint(name)}'
        file = FilePath(self._directory, name)
        if not file.exists():
            return None, f'there is no credential "{name}" in {self._directory}; {_unit_hint(name)}'
        return _content(file)


def _unit_hint(name: str) -> str:
    return f"add `LoadCredential={name}:/path/to/it` to the unit"


def _content(file: FilePath, *, lenient: bool = False) -> tuple[str | None, str]:
    try:
        content = read_regular(file, _SIZE_MAX).data
    except PermissionError as error:
        return None, "" if lenient else f"the secret's file {file} cannot be read: {error.strerror}"
    except FileRefused as error:
        return None, f"the secret's file {file} {error.strerror}"
    except FileNotFoundError:
        return None, f"the secret's file {file} is not there"
    except OSError as error:
        return None, f"the secret's file {file} cannot be read: {error.strerror}"
    try:
        return content.decode().removesuffix("\n"), ""
    except UnicodeDecodeError:
        return None, f"the secret's file {file} is no text"


def is_secret(model: type[OptionsModel], name: str) -> bool:
    """Return whether an option's value is to be masked."""
    field = model.model_fields.get(name)
    return field is not None and (facts_of(field).secret or holds_secret(kind_of(field)))
