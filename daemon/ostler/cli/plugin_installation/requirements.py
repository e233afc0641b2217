"""What the operator asks for: a name, a name with versions, a wheel, a directory, or a link to one."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import msgspec

from ostler.errors import InvalidInput, NotFound

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_SPECIFIED = re.compile(rf"({_NAME.pattern})\s*(?:\[[^\]]*\])?\s*(?:(?:===|~=|==|!=|<=|>=|<|>|@).*)?", re.DOTALL)
_ARCHIVES = (".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz")


class Requirement(msgspec.Struct, frozen=True):
    """One thing that is to be installed.

    Attributes:
        text: The requirement as pip reads it, with absolute paths.
        name: The name of its distribution, normalised; empty while only its build can tell.
        source: The directory or archive it is to be built from, None for what is found by name.
    """

    text: str
    name: str = ""
    source: Path | None = None


def normalise_name(distribution: str) -> str:
    """Return the name of a distribution as it is compared: in lower case, words separated by single hyphens."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def wheel_name(file_name: str) -> tuple[str, str]:
    """Return name and version that the name of a wheel says.

    Raises:
        InvalidInput: It is not the name of a wheel.
    """
    parts = file_name.removesuffix(".whl").split("-")
    if not file_name.endswith(".whl") or len(parts) not in (5, 6):
        raise InvalidInput(
            f"{file_name} is not the name of a wheel", hint="a wheel is named NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        )
    return normalise_name(parts[0]), parts[1]


def parse_requirement(text: str, folder: Path) -> Requirement:
    """Return what a word of the command line asks for.

    Args:
        text: `lamp`, `lamp==1.2`, `./lamp-1.2-py3-none-any.whl`, `./lamp`, `lamp @ git+https://…`.
        folder: What relative paths are relative to.

    Raises:
        InvalidInput: It is none of these.
        NotFound: It is a path, and nothing is there.
    """
    text = text.strip()
    path = Path(text).expanduser()
    if "://" not in text and ("/" in text or text in (".", "..") or text.endswith((".whl", *_ARCHIVES))):
        return _local_requirement(folder / path)
    if (url := urlparse(text)).scheme in ("http", "https", "file") and url.path.endswith(".whl") and " " not in text:
        name, _ = wheel_name(unquote(url.path).rpartition("/")[2])
        return Requirement(f"{name} @ {text}", name)
    if "\n" in text or text.startswith("-") or (match := _SPECIFIED.fullmatch(text)) is None:
        raise InvalidInput(
            f"{text!r} is not something to install",
            hint="give a name (`lamp`, `lamp==1.2`), a wheel, a directory, or `lamp @ https://…`",
        )
    return Requirement(text, normalise_name(match[1]))


def _local_requirement(path: Path) -> Requirement:
    if path.is_dir():
        if not any((path / name).is_file() for name in ("pyproject.toml", "setup.py")):
            raise InvalidInput(f"{path} is not a package: it has no pyproject.toml")
        return Requirement(str(path.resolve()), source=path.resolve())
    if not path.is_file():
        raise NotFound(f"{path} not found", hint="give a wheel, or a directory with a pyproject.toml")
    path = path.resolve()
    if path.name.endswith(".whl"):
        name, _ = wheel_name(path.name)
        return Requirement(str(path), name)
    if path.name.endswith(_ARCHIVES):
        return Requirement(str(path), source=path)
    raise InvalidInput(f"{path} is neither a wheel nor a source archive nor a directory")
