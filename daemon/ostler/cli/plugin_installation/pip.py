"""Runs pip, the one of Ostler's own environment, as a child process; pip has no interface for programs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ostler.cli.plugin_installation.requirements import normalise_name
from ostler.errors import PluginError
from ostler.plugins.plugin_directory import active_plugins
from ostler.time_text import format_seconds

_TIME_LIMIT = 1800.0
"""Seconds for one run of pip: it may compile."""
_MAX_ERROR_LINES = 12
_OVERRIDES = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_NO_COLOR": "1", "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_NO_PYTHON_VERSION_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip
_REMOVED = {
    "PIP_TARGET", "PIP_USER", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_UPGRADE",
    "PIP_EDITABLE", "PIP_REQUIRE_HASHES", "PIP_REPORT", "PIP_QUIET", "PIP_VERBOSE", "PIP_DRY_RUN",
    "PIP_LOG", "PIP_PYTHON", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID",
    "WATCHDOG_USEC",
}  # fmt: skip


class ReportedPackage(msgspec.Struct, frozen=True):
    """A package that pip would install.

    Attributes:
        name: The name of its distribution, as its metadata spell it.
        version: Its version.
        url: What it would be installed from.
        sha256: The hash of that file; empty if pip does not know one.
        is_direct: Whether it was given by its place, not found by its name.
        is_requested: Whether it was asked for, not needed by something else.
    """

    name: str
    version: str
    url: str
    sha256: str
    is_direct: bool
    is_requested: bool


class Pip:
    """Pip with the settings of the operator (index, proxy, certificates), and none that send packages elsewhere.

    Args:
        environ: The environment, with the `PIP_…` settings.
        sources: Further options that say where packages are found: `--no-index`, `--find-links DIR`.
        scratch: A directory for files that are handed to pip.
    """

    def __init__(self, environ: Mapping[str, str], sources: Sequence[str], scratch: Path) -> None:
        self._environ = {name: value for name, value in environ.items() if name not in _REMOVED} | _OVERRIDES
        self._sources = list(sources)
        self._scratch = scratch
        if importlib.util.find_spec("pip") is None:
            raise PluginError(
                f"pip is not installed for {sys.executable}",
                hint="plugins are installed with it: install it there (on Debian: apt install python3-pip)",
            )

    def with_sources(self, *sources: str) -> Pip:
        """Return a pip that searches in further places."""
        return Pip(self._environ, [*self._sources, *sources], self._scratch)

    def resolve(self, requirements: Sequence[str], constraints: Sequence[str]) -> list[ReportedPackage]:
        """Return what has to be installed beside Ostler's own environment, which stays as it is.

        Args:
            requirements: What is asked for, one requirement each.
            constraints: Versions that are taken where a package is needed.

        Raises:
            PluginError: These do not go together, or one cannot be found.
        """
        report = self._scratch / "report.json"
        report.unlink(missing_ok=True)
        needed = self._write_lines("requirements", requirements)
        bounds = self._write_lines("constraints", constraints)
        self._run(
            "install", "--dry-run", "--report", str(report), "--requirement", needed, "--constraint", bounds,
            what="that cannot be installed",
        )  # fmt: skip
        found: dict[str, Any] = msgspec.json.decode(report.read_bytes())
        return [_reported_package(item) for item in found["install"]]

    def build_wheel(self, source: Path, into: Path) -> Path:
        """Build a directory or archive into a wheel, and return that."""
        before = set(into.iterdir())
        self._run("wheel", "--no-deps", "--wheel-dir", str(into), str(source), what=f"{source} cannot be built")
        made = sorted(path for path in into.iterdir() if path.suffix == ".whl" and path not in before)
        if not made:
            raise PluginError(f"{source} was built, but no wheel came of it")
        return made[0]

    def download(self, requirements: Sequence[str], into: Path) -> None:
        """Put the wheels of packages into a directory; what has none is built."""
        if requirements:
            needed = self._write_lines("wheels", requirements)
            self._run(
                "wheel", "--no-deps", "--wheel-dir", str(into), "--requirement", needed,
                what="not every package can be fetched",
            )  # fmt: skip

    def install(self, requirements: Path, wheels: Path, into: Path) -> None:
        """Install packages with the hashes that a file of requirements has, from a directory of wheels alone."""
        self._run(
            "install", "--no-deps", "--no-index", "--find-links", str(wheels), "--require-hashes", "--target",
            str(into), "--no-warn-script-location", "--requirement", str(requirements),
            what="the packages cannot be installed", bare=True,
        )  # fmt: skip

    def newest_version(self, name: str) -> str:
        """Return the newest version of a package that could be installed; empty if there is none to be found."""
        try:
            lines = self._run("index", "versions", name, what=f"{name} cannot be looked up").splitlines()
        except PluginError:
            return ""
        versions = [line.partition(":")[2] for line in lines if line.lower().startswith("available versions:")]
        return versions[0].partition(",")[0].strip() if versions else ""

    def settings(self) -> dict[str, str]:
        """Return the settings of pip's files and of its environment: `index-url`, `extra-index-url`, `find-links`."""
        found: dict[str, str] = {}
        for line in self._run("config", "list", what="the settings of pip cannot be read", bare=True).splitlines():
            key, _, value = line.partition("=")
            found[key.rpartition(".")[2]] = value.strip("'\"").replace("\\n", "\n")
        return found

    def _write_lines(self, name: str, lines: Sequence[str]) -> str:
        path = self._scratch / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    def _run(self, verb: str, *options: str, what: str, bare: bool = False) -> str:
        places = () if bare else self._sources
        # -I: no package of the current directory, of PYTHONPATH or of the user's own counts as installed.
        command = [sys.executable, "-I", "-m", "pip", verb, *places, *options]
        try:
            done = subprocess.run(
                command, env=self._environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=_TIME_LIMIT, check=False, umask=0o022, cwd=self._scratch,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PluginError(f"{what}: pip took more than {format_seconds(_TIME_LIMIT)}") from None
        if done.returncode != 0:
            raise PluginError(f"{what}: {_reason_of(done)}", hint="nothing was changed")
        return done.stdout


def own_packages() -> dict[str, str]:
    """Return the packages of Ostler's own environment: normalised name to version."""
    from importlib.metadata import distributions  # 30 ms: only for installations

    path = [entry for entry in sys.path if entry != active_plugins.packages]
    found: dict[str, str] = {}
    for distribution in distributions(path=path):
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(normalise_name(name), distribution.version)
    return found


def _reported_package(item: dict[str, Any]) -> ReportedPackage:
    download = item["download_info"]
    hashes = download.get("archive_info", {}).get("hashes", {})
    return ReportedPackage(
        name=item["metadata"]["name"],
        version=item["metadata"]["version"],
        url=download["url"],
        sha256=hashes.get("sha256", ""),
        is_direct=item["is_direct"],
        is_requested=item["requested"],
    )


def _conflict_in(output: str) -> str:
    """Return what pip says of versions that exclude each other, on one line; empty when it says nothing of it."""
    _, found, rest = output.partition("The conflict is caused by:")
    lines = [line.strip() for line in rest.partition("\n\n")[0].splitlines() if line.strip()] if found else []
    return "; ".join(
        re.sub(r"^The user requested \(constraint\) (.*)==", r"this environment has \1 ", line) for line in lines
    )


def _reason_of(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"pip was killed by signal {-done.returncode}"
    if conflict := _conflict_in(done.stdout):
        return conflict
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if "Exception:" in errors:  # of pip itself, such as on a full disk: its traceback ends with the error
        return lines[-1]
    told = errors or lines[-_MAX_ERROR_LINES:] or [f"pip exited with {done.returncode}"]
    return "; ".join(told[:_MAX_ERROR_LINES])
