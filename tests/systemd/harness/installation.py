"""Ostler installed as on a host: in /opt/ostler, from built wheels, readable by every user, on the system's own Python.

The virtual environment of this tree will not do inside the container: its Python may live below /root, and its packages
are links into this tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from realsystemd import Machine

REPOSITORY = Path(__file__).parents[3]
UNITS = REPOSITORY / "systemd"
HOME = "/opt/ostler"
SYSTEM_PYTHON = Path("/usr/bin/python3")

CONFIGURATION = """\
[daemon]
stop_timeout = "5s"

[services.scheduler]
manager = "scheduler"

[services.volume]
manager = "volume"

[services.volume.drivers.local]
driver = "file"
path = "/var/lib/ostler/volumes"
reserve = "0"
"""


class InstallationFailed(Exception):
    """A virtual environment for the container could not be made; says what was printed."""


def prepared(python: Path = SYSTEM_PYTHON, cache: Path = REPOSITORY / "build" / "systemd") -> Path:
    """Return a folder to be bound to /opt/ostler; made anew only as far as something has changed since."""
    projects = [REPOSITORY, *sorted(path.parent for path in REPOSITORY.glob("plugins/*/pyproject.toml"))]
    environment = cache / "ostler"
    cache.mkdir(parents=True, exist_ok=True)
    with _only_one(cache / "lock"):
        needs = _digest([python.resolve(), *(project / "pyproject.toml" for project in projects)])
        sources = _digest(_sources(projects))
        if not _is(cache / "needs", needs):
            (cache / "sources").unlink(missing_ok=True)
            _make_environment(python, environment, projects)
            (cache / "needs").write_text(needs)
        if not _is(cache / "sources", sources):
            _install(environment, projects)
            (cache / "sources").write_text(sources)
    return environment


def install(machine: Machine, configuration: str = CONFIGURATION) -> None:
    """Put units, user, folders and a configuration where a package would; /opt/ostler is there already."""
    machine.path("/usr/bin/ostler").symlink_to(f"{HOME}/bin/ostler")
    machine.write("/usr/lib/systemd/system/ostler.service", (UNITS / "ostler.service").read_text())
    machine.write("/usr/lib/sysusers.d/ostler.conf", (UNITS / "ostler.sysusers.conf").read_text())
    machine.write("/usr/lib/tmpfiles.d/ostler.conf", (UNITS / "ostler.tmpfiles.conf").read_text())
    machine.run("systemd-sysusers", "ostler.conf")
    machine.run("systemd-tmpfiles", "--create", "ostler.conf")
    machine.write("/etc/ostler/ostler.toml", configuration)
    machine.systemctl("daemon-reload")


def _make_environment(python: Path, environment: Path, projects: list[Path]) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    _run(str(python), "-m", "venv", str(environment))
    # hatchling builds the wheels later without fetching itself again for each.
    _run(str(environment / "bin/pip"), "install", "hatchling", *map(str, projects))


def _install(environment: Path, projects: list[Path]) -> None:
    options = ["--no-deps", "--no-build-isolation", "--force-reinstall", "--no-index"]
    _run(str(environment / "bin/pip"), "install", *options, *map(str, projects))
    script = environment / "bin/ostler"
    lines = script.read_text().splitlines(keepends=True)
    script.write_text("".join([f"#!{HOME}/bin/python\n", *lines[1:]]))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, umask=0o022, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise InstallationFailed(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _sources(projects: list[Path]) -> Iterator[Path]:
    for project in projects:
        for folder in [project / "daemon"] if project == REPOSITORY else [project]:
            found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
            yield from sorted(found)
        yield project / "pyproject.toml"


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _is(note: Path, expected: str) -> bool:
    return note.exists() and note.read_text() == expected


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
