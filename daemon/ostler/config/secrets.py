"""Secrets: where the configuration names them, and how they are read.

A secret never stands in a configuration file. The file says `{credential = "name"}`, which is a file of that name in
`$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`), or `{file = "/path"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from ostler.config.expectations import Kind, holds_secret, item_kind, kind_of, model_in
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
        offline: Look at the form of the references alone: credentials exist only inside the unit.
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
            if name not in table:
                continue
            kind, here = kind_of(field), (*path, name)
            inner = model_in(kind)
            if holds_secret(kind):
                self._replace(resolved, name, here)
            elif inner is not None and isinstance(table[name], dict):
                resolved[name] = self.resolve(table[name], inner, here)
            else:
                self._note_inside(table[name], kind)
        return resolved

    def _note_inside(self, value: object, kind: Kind) -> None:
        """Have secrets looked for that stand as they are in a list, or in a table of tables: they are not resolved."""
        if holds_secret(kind):
            self._note(value if isinstance(value, str) else None)
            return
        items: Iterable[tuple[str | int, Any]] = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        for key, item in items:
            inner = item_kind(kind, key)
            if inner is not None:
                self._note_inside(item, inner)

    def _replace(self, table: dict[str, Any], name: str, path: Path) -> None:
        secret, wrong = self._read(table[name])
        self._note(secret)
        if wrong:
            self.problems.append((path, wrong))
        if wrong or secret is None:
            self.placeholders.add(path)
        table[name] = PLACEHOLDER if wrong or secret is None else secret

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
        return (None, "") if self._offline else _content(FilePath(target))

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


def _content(file: FilePath) -> tuple[str | None, str]:
    try:
        content = read_regular(file, _SIZE_MAX).data
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
