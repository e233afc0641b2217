"""One change of the set of installed plugins: built beside the current one, checked, and switched to by a link."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

import msgspec

from ostler import __version__
from ostler.cli.plugin_installation.pip import Pip, ReportedPackage, own_packages
from ostler.cli.plugin_installation.plugin_set import InstalledPackage, PluginSet, hash_file
from ostler.cli.plugin_installation.requirements import Requirement, normalise_name, wheel_name
from ostler.cli.plugin_installation.verification import VerifiedPlugin, verify_packages
from ostler.errors import Conflict, NotFound, PluginError, join_words
from ostler.files import Trust, check_trusted
from ostler.plugins.plugin_directory import (
    CURRENT,
    PACKAGES,
    SETS,
    current_set,
    earlier_sets,
    is_in_use,
    next_set_name,
)

_KEPT_SETS = 1
"""How many sets are kept besides the current one and those in use: one can go back by hand."""
_WORK = ".new"
_WHEELS = "wheels"


class InstallationResult(msgspec.Struct, frozen=True):
    """What a change did, for programs: a line for each package that changed, all packages, and their plugins."""

    changes: list[str]
    packages: tuple[InstalledPackage, ...]
    plugins: list[VerifiedPlugin]


class SetChange(msgspec.Struct, frozen=True):
    """What a change did.

    Attributes:
        before: The set before.
        after: The set now.
        plugins: What the plugins of the new set provide.
    """

    before: PluginSet
    after: PluginSet
    plugins: list[VerifiedPlugin] = []

    def lines(self) -> list[str]:
        """Return a line for each package that was added, replaced or removed."""
        old = {package.name: package for package in self.before.packages}
        new = {package.name: package for package in self.after.packages}
        lines = []
        for name in sorted(old | new):
            if name not in old:
                lines.append(f"installed {name} {new[name].version}")
            elif name not in new:
                lines.append(f"removed {name} {old[name].version}")
            elif old[name].version != new[name].version:
                lines.append(f"replaced {name} {old[name].version} by {new[name].version}")
            elif old[name].sha256 != new[name].sha256:
                lines.append(f"replaced {name} {new[name].version} by another build of that version")
        return lines

    def result(self) -> InstallationResult:
        """Return what the change did, for programs."""
        return InstallationResult(self.lines(), self.after.packages, self.plugins)


class PluginInstallation:
    """The directory of plugins, for changes; they are made one at a time.

    Args:
        directory: The directory of plugins; made when it is missing.
        environ: The environment, with the settings of pip.
        sources: Options for pip that say where packages are found.
        verify: Returns what a directory of packages provides; tests pass their own.
        on_step: Called with what is done next.
        trust: Who may own what is there; see `UntrustedOwner` of the methods.
    """

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str],
        *,
        sources: Sequence[str] = (),
        verify: Callable[[Path], list[VerifiedPlugin]] = verify_packages,
        on_step: Callable[[str], object] = lambda _line: None,
        trust: Trust | None = None,
    ) -> None:
        self._directory = directory
        self._environ = environ
        self._sources = list(sources)
        self._verify = verify
        self._on_step = on_step
        self._trust = trust or Trust.of_process()

    @property
    def current(self) -> PluginSet:
        """The current set."""
        return PluginSet.read(current_set(self._directory))

    def install(self, requirements: Sequence[Requirement]) -> SetChange:
        """Add packages, or replace those of the same name; the others keep their versions if that is possible.

        Raises:
            PluginError: They cannot be found, built, installed beside the others, imported, or have faults; nothing
                was changed.
            Conflict: One is a package of Ostler's own environment, or another installation is at work.
        """
        with self._work() as work:
            before = self.current
            pip = self._pip(work)
            built = [self._build(pip, each, work / "wheels") for each in requirements]
            names = {each.name for each in built}
            kept = [package for package in before.requested if package.name not in names]
            wanted = [f"{each.name} @ {Path(each.text).as_uri()}" if _is_wheel(each) else each.text for each in built]
            wanted += [f"{package.name}=={package.version}" for package in kept]
            sources = {each.name: str(given.source or "") for each, given in zip(built, requirements, strict=True)}
            sources |= {package.name: package.source for package in kept}
            free = [package for package in before.packages if not package.is_requested and package.name not in names]
            reported = self._resolve_near(pip, wanted, free)
            self._refuse_own_packages(names, reported)
            known = PluginSet(packages=tuple(package for package in before.packages if package.name not in names))
            return self._build_set(work, pip, reported, known, sources)

    def install_frozen(self, frozen: PluginSet) -> SetChange:
        """Install exactly what a file lists that `freeze` has written, and remove everything else.

        Raises:
            PluginError: Something of it cannot be found, or is not what the file describes; nothing was changed.
        """
        with self._work() as work:
            return self._rebuild(work, frozen, frozen.requested)

    def remove(self, names: Sequence[str]) -> SetChange:
        """Remove packages that were asked for, and what only they needed.

        Raises:
            NotFound: One is not installed here.
            PluginError: The others do not work without them; nothing was changed.
        """
        with self._work() as work:
            before = self.current
            gone = [_find_package(before, name).name for name in names]
            kept = [package for package in before.requested if package.name not in gone]
            if not kept:
                (self._directory / CURRENT).unlink()
                self._prune()
                return SetChange(before, PluginSet())
            return self._rebuild(work, before, kept)

    def replay(self) -> SetChange:
        """Build the current set again, for this Ostler and this Python, with the same versions.

        Raises:
            NotFound: Nothing is installed.
            PluginError: A version does not fit to this Ostler; nothing was changed.
        """
        with self._work() as work:
            before = self.current
            if not before.packages:
                raise NotFound("no plugins are installed here", directory=str(self._directory))
            return self._rebuild(work, before, before.requested)

    def _rebuild(self, work: Path, known: PluginSet, kept: Sequence[InstalledPackage]) -> SetChange:
        free = [package for package in known.packages if not package.is_requested]
        wanted = [f"{package.name}=={package.version}" for package in kept]
        sources = {package.name: package.source for package in kept}
        pip = self._pip(work)
        try:
            # What was installed here once needs no index.
            offline = pip.with_sources("--no-index")
            return self._build_set(work, offline, offline.resolve(wanted, _pins(free)), known, sources)
        except PluginError:
            if "--no-index" in self._sources:
                raise
        return self._build_set(work, pip, self._resolve_near(pip, wanted, free), known, sources)

    def _pip(self, work: Path) -> Pip:
        kept = self._directory / _WHEELS
        places = ["--find-links", str(kept)] if kept.is_dir() else []
        return Pip(self._environ, [*self._sources, *places], work)

    def _build(self, pip: Pip, requirement: Requirement, into: Path) -> Requirement:
        if requirement.source is None:
            return requirement
        self._on_step(f"building {requirement.source}")
        wheel = pip.build_wheel(requirement.source, into)
        return Requirement(str(wheel), wheel_name(wheel.name)[0])

    def _resolve_near(self, pip: Pip, wanted: Sequence[str], free: Sequence[InstalledPackage]) -> list[ReportedPackage]:
        """Resolve with what others need at the versions that it has; if that is impossible, with any."""
        self._on_step("resolving")
        try:
            return pip.resolve(wanted, _pins(free))
        except PluginError:
            if not free:
                raise
        return pip.resolve(wanted, _pins([]))

    def _refuse_own_packages(self, names: set[str], reported: Sequence[ReportedPackage]) -> None:
        found = {normalise_name(package.name) for package in reported}
        own = own_packages()
        for name in sorted(names - found):
            raise Conflict(
                f"{name} {own.get(name, '')} is a package of the environment that Ostler itself is installed in",
                hint=f"replace it there ({sys.prefix}), with the tool that made it",
                package=name,
            )

    def _build_set(
        self, work: Path, pip: Pip, reported: Sequence[ReportedPackage], known: PluginSet, sources: Mapping[str, str]
    ) -> SetChange:
        """Build, check and publish a set; `known` has the hashes that must not have changed."""
        wheels = work / "wheels"
        self._on_step(f"fetching {join_words(f'{package.name} {package.version}' for package in reported)}")
        packages = _fetch(pip, reported, wheels, known, sources)
        after = PluginSet(__version__, sys.implementation.cache_tag or "", tuple(sorted(packages)))
        built = work / "set"
        built.mkdir()
        after.write(built)
        self._on_step("installing")
        pip.install(built / "requirements.txt", wheels, built / PACKAGES)
        shutil.rmtree(built / PACKAGES / "bin", ignore_errors=True)
        self._on_step("checking")
        plugins = self._verify(built / PACKAGES)
        _refuse_faults(plugins, after)
        before = self.current
        self._publish(work, built)
        return SetChange(before, after, plugins)

    def _publish(self, work: Path, built: Path) -> None:
        store = self._directory / _WHEELS
        store.mkdir(exist_ok=True)
        for wheel in (work / "wheels").iterdir():
            wheel.replace(store / wheel.name)
        (self._directory / SETS).mkdir(exist_ok=True)
        name = next_set_name(self._directory)
        _sync_tree(built)
        built.replace(self._directory / SETS / name)
        link = work / "link"
        link.symlink_to(Path(SETS) / name)
        link.replace(self._directory / CURRENT)
        _sync(self._directory)
        self._prune()

    def _prune(self) -> None:
        kept = [path for path in (current_set(self._directory),) if path is not None]
        for count, path in enumerate(earlier_sets(self._directory)):
            if count < _KEPT_SETS or is_in_use(path):
                kept.append(path)
            else:
                shutil.rmtree(path, ignore_errors=True)
        used = set()
        for path in kept:
            with suppress(PluginError):
                used |= {package.wheel for package in PluginSet.read(path).packages}
        for wheel in (self._directory / _WHEELS).glob("*.whl"):
            if wheel.name not in used:
                wheel.unlink(missing_ok=True)

    @contextmanager
    def _work(self) -> Iterator[Path]:
        """Yield an empty directory beside the sets, which is removed at the end; one change at a time.

        Raises:
            UntrustedOwner: The directory of plugins, or one in it, belongs to another user or can be written by one.
        """
        previous = os.umask(0o022)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # Whoever can write there could have root replace files elsewhere, through a link.
            check_trusted([self._directory, *map(self._directory.joinpath, (SETS, _WHEELS, _WORK))], self._trust)
            with _exclusive(self._directory):
                work = self._directory / _WORK
                shutil.rmtree(work, ignore_errors=True)  # of an installation that was killed
                (work / "wheels").mkdir(parents=True)
                try:
                    yield work
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        except OSError as error:
            raise PluginError(
                f"the plugins in {self._directory} cannot be changed: {error.strerror or error}",
                hint="nothing was changed" if not isinstance(error, PermissionError) else "run this as its owner: sudo",
            ) from error
        finally:
            os.umask(previous)


def _fetch(
    pip: Pip, reported: Sequence[ReportedPackage], wheels: Path, known: PluginSet, sources: Mapping[str, str]
) -> list[InstalledPackage]:
    """Put the wheels of packages into a directory, and return these with their hashes."""
    pip.download([_place_of(package) for package in reported if not _is_in(package, wheels)], wheels)
    by_name = {wheel_name(path.name)[0]: path for path in wheels.glob("*.whl")}
    recorded = {(package.name, package.version): package for package in known.packages}
    found = []
    for package in reported:
        name = normalise_name(package.name)
        if (wheel := by_name.get(name)) is None:
            raise PluginError(f"the wheel of {package.name} {package.version} did not arrive")
        digest = hash_file(wheel)
        _check_digest(wheel, digest, package, recorded.get((name, package.version)))
        found.append(
            InstalledPackage(name, package.version, digest, wheel.name, name in sources, sources.get(name, ""))
        )
    return found


def _check_digest(wheel: Path, digest: str, package: ReportedPackage, recorded: InstalledPackage | None) -> None:
    """Refuse a wheel that is not the one that the index, or the record, describes."""
    if package.sha256 and package.url.endswith(".whl") and digest != package.sha256:
        raise PluginError(
            f"{wheel.name} is not the wheel that the index describes: its SHA-256 is {digest}, not {package.sha256}"
        )
    # Another Python gets another wheel. Of a file that was written by `freeze` the names of wheels are not known.
    if recorded is not None and recorded.wheel in ("", wheel.name) and recorded.sha256 != digest:
        raise PluginError(
            f"{package.name} {package.version} is not what was recorded: the SHA-256 of {wheel.name} is {digest}, not "
            f"{recorded.sha256}",
            hint="someone has replaced it under the same version; to accept that, remove it and install it again",
        )


def _place_of(package: ReportedPackage) -> str:
    return f"{package.name} @ {package.url}" if package.is_direct else f"{package.name}=={package.version}"


def _is_in(package: ReportedPackage, directory: Path) -> bool:
    url = urlparse(package.url)
    return url.scheme == "file" and Path(unquote(url.path)).parent == directory


def _is_wheel(requirement: Requirement) -> bool:
    return requirement.text.endswith(".whl") and "://" not in requirement.text


def _pins(packages: Sequence[InstalledPackage]) -> list[str]:
    """Return the constraints of a resolution: Ostler's own environment as it is, and some packages as they were."""
    own = own_packages()
    pins = {package.name: package.version for package in packages} | own
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def _find_package(plugins: PluginSet, name: str) -> InstalledPackage:
    wanted = normalise_name(name)
    # A plugin `lamp` is mostly that of the package `ostler-lamp`.
    for package in plugins.requested:
        if package.name in (wanted, f"ostler-{wanted}"):
            return package
    known = join_words(package.name for package in plugins.requested)
    if any(package.name == wanted for package in plugins.packages):
        raise Conflict(f"{name} was not asked for: another package needs it", hint=f"installed by name: {known}")
    raise NotFound(f"{name} is not installed here", hint=f"installed: {known or 'nothing'}", package=name)


def _refuse_faults(plugins: Sequence[VerifiedPlugin], after: PluginSet) -> None:
    faults = [f"{plugin.name} of {plugin.distribution}: {fault}" for plugin in plugins for fault in plugin.faults]
    if faults:
        raise PluginError(f"a plugin has faults: {'; '.join(faults)}", hint="nothing was changed")
    providers = {normalise_name(plugin.distribution) for plugin in plugins}
    for package in after.requested:
        if package.name not in providers:
            raise PluginError(
                f"{package.name} {package.version} is not a plugin of Ostler: it has no entry point in the groups "
                "`ostler` and `ostler.commands`",
                hint="nothing was changed; what a plugin needs is installed with it"
                + ("" if package.name.startswith("ostler-") else f"; is ostler-{package.name} meant?"),
            )


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"the plugins in {directory} are being changed by another process") from None
        yield
    finally:
        os.close(descriptor)


def _sync_tree(directory: Path) -> None:
    # The link must not lead to files that are not on disk yet.
    for folder, _, files in os.walk(directory):
        for name in files:
            _sync(Path(folder) / name)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
