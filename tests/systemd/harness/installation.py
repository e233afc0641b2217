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

from systemd_container import SystemdContainer

REPOSITORY = Path(__file__).parents[3]
CACHE = REPOSITORY / "build" / "systemd"
PLUGINS = "plugins/*/pyproject.toml"
ENTER_ROOT = Path(__file__).parent / "enter-root.sh"
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


def prepared(root: Path | None = None) -> Path:
    """Return a folder to be bound to /opt/ostler; made anew only as far as something has changed since.

    Args:
        root: Another root than this machine's, whose Python it is for.
    """
    cache = CACHE / (root.name if root else "this")
    (cache / "ostler").mkdir(parents=True, exist_ok=True)
    builder = _Builder(cache / "ostler", root)
    with _only_one(cache / "lock"):
        needs = _digest([builder.python, *(REPOSITORY / name / "pyproject.toml" for name in builder.projects)])
        sources = _digest(_sources(builder.projects))
        if not _is(cache / "needs", needs):
            (cache / "sources").unlink(missing_ok=True)
            builder.make_environment()
            (cache / "needs").write_text(needs)
        if not _is(cache / "sources", sources):
            builder.install()
            (cache / "sources").write_text(sources)
    return cache / "ostler"


def debian_13() -> Path:
    """Return the root of a Debian 13, fetched on first use from where apt fetches on this machine."""
    root = CACHE / "trixie-root"
    CACHE.mkdir(parents=True, exist_ok=True)
    with _only_one(CACHE / "trixie-lock"):
        if not root.is_dir():
            half = CACHE / "trixie-half"
            shutil.rmtree(half, ignore_errors=True)
            targets = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
            packages = "systemd,dbus,python3,python3-venv"
            mirror = targets.splitlines()[0]
            _run("debootstrap", "--variant=minbase", f"--include={packages}", "trixie", str(half), mirror)
            half.rename(root)
    return root


def install(machine: SystemdContainer, configuration: str = CONFIGURATION) -> None:
    """Put units, user, folders and a configuration where a package would; /opt/ostler is there already."""
    machine.path("/usr/bin/ostler").symlink_to(f"{HOME}/bin/ostler")
    machine.write("/usr/lib/systemd/system/ostler.service", (UNITS / "ostler.service").read_text())
    machine.write("/usr/lib/sysusers.d/ostler.conf", (UNITS / "ostler.sysusers.conf").read_text())
    machine.write("/usr/lib/tmpfiles.d/ostler.conf", (UNITS / "ostler.tmpfiles.conf").read_text())
    machine.run("systemd-sysusers", "ostler.conf")
    machine.run("systemd-tmpfiles", "--create", "ostler.conf")
    machine.write("/etc/ostler/ostler.toml", configuration)
    machine.systemctl("daemon-reload")


class _Builder:
    """Makes the virtual environment; in another root by the Python there."""

    def __init__(self, environment: Path, root: Path | None) -> None:
        self.environment = environment
        self.projects = [".", *sorted(str(path.parent.relative_to(REPOSITORY)) for path in REPOSITORY.glob(PLUGINS))]
        self.python = root / "usr/bin/python3" if root else SYSTEM_PYTHON
        if root:
            enter = ["sh", str(ENTER_ROOT), str(root), str(REPOSITORY), str(environment)]
            self._enter = ["unshare", "--mount", "--propagation", "private", *enter]
            self._seen, self._sources = Path(HOME), Path("/src")
        else:
            self._enter, self._seen, self._sources = [], environment, REPOSITORY

    def make_environment(self) -> None:
        """Make it anew, with everything that Ostler depends on."""
        _run(*self._enter, str(SYSTEM_PYTHON), "-m", "venv", "--clear", str(self._seen))
        # hatchling builds the wheels later without fetching itself again for each.
        self._pip("hatchling")

    def install(self) -> None:
        """Install Ostler and the plugins as they are now."""
        self._pip("--no-deps", "--no-build-isolation", "--force-reinstall", "--no-index")
        script = self.environment / "bin/ostler"
        lines = script.read_text().splitlines(keepends=True)
        script.write_text("".join([f"#!{HOME}/bin/python\n", *lines[1:]]))

    def _pip(self, *options: str) -> None:
        projects = [str(self._sources / name) for name in self.projects]
        _run(*self._enter, str(self._seen / "bin/pip"), "install", *options, *projects)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, umask=0o022, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise InstallationFailed(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _sources(projects: list[str]) -> Iterator[Path]:
    yield REPOSITORY / "pyproject.toml"
    for name in projects:
        folder = REPOSITORY / ("daemon" if name == "." else name)
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


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
