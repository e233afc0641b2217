"""The record of a set of plugins: what was asked for, and every package that was installed for it, with its hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from ostler.cli.plugin_installation.requirements import normalise_name
from ostler.errors import InvalidInput, PluginError, error_line

RECORD = "plugins.json"
_CHUNK_SIZE = 1024 * 1024
_NOT_REQUESTED = "# needed by another one"
_FROZEN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)\s+--hash=sha256:([0-9a-f]{64})")


class InstalledPackage(msgspec.Struct, frozen=True, order=True):
    """A package of a set.

    Attributes:
        name: The name of its distribution, normalised.
        version: Its version.
        sha256: The hash of the wheel.
        wheel: The file name of the wheel.
        is_requested: Whether it was asked for, not only needed by another one.
        source: What it was asked for as, such as a directory; empty for what was found by name.
    """

    name: str
    version: str
    sha256: str
    wheel: str
    is_requested: bool = True
    source: str = ""


class PluginSet(msgspec.Struct, frozen=True):
    """A set of plugins.

    Attributes:
        ostler: The version of Ostler that it was installed by.
        python: The Python that it was installed for, such as `cpython-311`.
        packages: Its packages, by name.
    """

    ostler: str = ""
    python: str = ""
    packages: tuple[InstalledPackage, ...] = ()

    @classmethod
    def read(cls, directory: Path | None) -> PluginSet:
        """Return the record of a set; an empty one without a set, or when the whole of it is gone.

        Raises:
            PluginError: The record is damaged.
        """
        if directory is None or not directory.exists():
            return cls()
        try:
            return msgspec.json.decode((directory / RECORD).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise PluginError(
                f"the record {directory / RECORD} cannot be read: {error_line(error)}",
                hint="move that directory away and install the plugins again",
            ) from error

    @classmethod
    def parse(cls, text: str) -> PluginSet:
        """Return the set that `requirements` has written.

        Raises:
            InvalidInput: A package has no version or no hash, or the text is something else, or there is none.
        """
        packages: list[InstalledPackage] = []
        is_requested = True
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("#") or not line.strip():
                is_requested = line.strip() != _NOT_REQUESTED
                continue
            if (match := _FROZEN.fullmatch(line.strip())) is None:
                raise InvalidInput(
                    f"package {len(packages) + 1} is not `NAME==VERSION --hash=sha256:…`: {line.strip()[:80]}",
                    hint="the file is written by `ostler plugin freeze`",
                )
            packages.append(InstalledPackage(normalise_name(match[1]), match[2], match[3], "", is_requested))
            is_requested = True
        if not packages:  # such as the file of a `freeze` that failed: it must not remove everything
            raise InvalidInput("the file lists no package", hint="`ostler plugin remove` removes plugins")
        return cls(packages=tuple(sorted(packages)))

    def write(self, directory: Path) -> None:
        """Write the record, and the same for pip."""
        (directory / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        (directory / "requirements.txt").write_text(self.requirements(), encoding="utf-8")

    @property
    def requested(self) -> list[InstalledPackage]:
        """The packages that were asked for."""
        return [package for package in self.packages if package.is_requested]

    def requirements(self) -> str:
        """Return the set as pip's file of requirements, with the hash of each wheel."""
        blocks = []
        for package in self.packages:
            comment = "" if package.is_requested else f"{_NOT_REQUESTED}\n"
            blocks.append(f"{comment}{package.name}=={package.version} \\\n    --hash=sha256:{package.sha256}\n")
        return "".join(blocks)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_SIZE):
            digest.update(chunk)
    return digest.hexdigest()
