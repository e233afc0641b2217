"""What the peers need on this machine: a virtual environment and three programs, all below `build/peers`.

The programs are taken from the machine when it has them. Else their Debian packages are downloaded and unpacked below
`build/peers`: that needs no root, and nothing is installed or started by the system.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_PACKAGES = {"rabbitmq": "rabbitmq-server", "nats-server": "nats-server", "dbus-daemon": "dbus-daemon"}
_FILES = {
    "rabbitmq": "usr/lib/rabbitmq/bin/rabbitmq-server",
    "nats-server": "usr/sbin/nats-server",
    "dbus-daemon": "usr/bin/dbus-daemon",
}
_VERSIONS = (
    "import json, sys\n"
    "from importlib.metadata import version, PackageNotFoundError\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: found[name] = version(name)\n"
    "    except PackageNotFoundError: pass\n"
    "print(json.dumps(found))\n"
)
_LIMIT = 900.0


class Unavailable(Exception):
    """Something cannot be had on this machine; the message is the reason."""


@dataclass(frozen=True)
class Places:
    """Where everything lies.

    Args:
        home: The folder for what is installed: `build/peers`.
        machine: The root of the machine's own programs.
    """

    home: Path
    machine: Path = Path("/")

    @property
    def python(self) -> Path:
        """The interpreter that has the libraries of the peers."""
        return self.home / "venv" / "bin" / "python"

    @property
    def unpacked(self) -> Path:
        """The root of the unpacked packages."""
        return self.home / "root"

    def program(self, name: str) -> Path | None:
        """Return the program of this name, ours or the machine's."""
        for root in (self.unpacked, self.machine):
            if (root / _FILES[name]).exists():
                return root / _FILES[name]
        found = None if name == "rabbitmq" else shutil.which(name)
        return Path(found) if found else None


def make_environment(places: Places) -> dict[str, str]:
    """Make the virtual environment once for these requirements; return why distributions are missing from it."""
    stamp = places.home / "venv" / ".made"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted and places.python.exists():
        return {}
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(places.home / "venv")])
        missing = _install(places, requirements(wanted))
    except Unavailable as error:
        return dict.fromkeys(requirements(wanted), str(error))
    if not missing:
        stamp.write_text(wanted, encoding="utf-8")
    return missing


def _install(places: Places, wanted: dict[str, str]) -> dict[str, str]:
    pip = [str(places.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([*pip, "-r", str(REQUIREMENTS)])
    except Unavailable:
        # One that cannot be had is not to take the others along.
        missing = {}
        for distribution, requirement in wanted.items():
            try:
                _run([*pip, requirement])
            except Unavailable as error:
                missing[distribution] = str(error)
        return missing
    return {}


def requirements(text: str) -> dict[str, str]:
    """Return the lines of a requirements file by the distribution that each names."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]: line for line in lines if line}


def versions(places: Places, distributions: list[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    if not places.python.exists():
        return {}
    return json.loads(_run([str(places.python), "-c", _VERSIONS, *distributions]))


def fetch(places: Places, name: str) -> Path:
    """Return the program of this name; download and unpack its packages where the machine has none.

    Raises:
        Unavailable: With the reason.
    """
    if found := places.program(name):
        return found
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable(f"{_PACKAGES[name]} is not installed, and there is no apt-get to download it with")
    packages = packages_of(_run(["apt-get", "--simulate", "--no-install-recommends", "install", _PACKAGES[name]]))
    archives = places.home / "debs" / name
    archives.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", *packages], cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg", "--extract", str(archive), str(places.unpacked)])
    shutil.rmtree(archives)
    if found := places.program(name):
        return found
    raise Unavailable(f"the package {_PACKAGES[name]} has no {_FILES[name]}")


def packages_of(simulated: str) -> list[str]:
    """Return the packages that `apt-get --simulate install` would install."""
    return [line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")]


def reason_of(said: str) -> str:
    """Return the line of an output that says why it failed: the last that speaks of an error, or else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("E:") or re.search("error|critical", line, re.IGNORECASE)]
    return (telling or lines or ["it said nothing"])[-1][:200]


def _run(arguments: list[str], cwd: Path | None = None) -> str:
    """Run a program to its end; return its output."""
    name = "pip" if "pip" in arguments else Path(arguments[0]).name
    try:
        done = subprocess.run(
            arguments, cwd=cwd, capture_output=True, text=True, check=False, timeout=_LIMIT,
            env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} was not done after {_LIMIT:g} s") from None
    if done.returncode:
        raise Unavailable(f"{name} failed: {reason_of(done.stderr or done.stdout)}")
    return done.stdout
