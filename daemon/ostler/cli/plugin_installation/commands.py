"""`ostler plugin install|remove|replay|freeze`, and what `list --available` shows; see `cli.plugin_installation`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostler.cli import invocation, kit
from ostler.cli.results import AvailablePlugin
from ostler.errors import InvalidInput, NotFound, OstlerError

if TYPE_CHECKING:
    # 20 ms: only for installations.
    from ostler.cli.plugin_installation.installation import PluginInstallation, SetChange

_RESULT = "ostler.cli.plugin_installation.installation:InstallationResult"
From = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="PLACE", help="Look for packages in this directory of wheels, or page, as well"),
]
Offline = Annotated[bool, typer.Option("--offline", help="Look nowhere but in --from and in what was installed before")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to `ostler plugin`."""
    for command in (install, remove, replay, freeze):
        app.command()(command)


@kit.shows(_RESULT)
def install(
    packages: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PACKAGE]...", help="A name, `lamp==1.2`, a wheel, a directory, or `lamp @ https://…`"),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option(
            "--requirements",
            "-r",
            metavar="FILE",
            help="Install exactly what `freeze` wrote to FILE",
            show_default=False,
        ),
    ] = None,
    places: From = None,
    offline: Offline = False,
) -> None:
    """Install plugins, or other versions of them.

    Needs no daemon. Packages get their versions and hashes recorded, and are imported and checked before anything is
    changed. Packages of Ostler and of the system stay as they are.
    """
    # 20 ms: only for installations.
    from ostler.cli.plugin_installation.plugin_set import PluginSet
    from ostler.cli.plugin_installation.requirements import parse_requirement

    if bool(packages) == (requirements is not None):
        raise InvalidInput(
            "packages and --requirements exclude each other" if packages else "nothing to install was given",
            hint="give packages: a name, a wheel or a directory",
        )
    frozen = PluginSet.parse(_read_text(requirements)) if requirements is not None else None
    with _changing(places, offline=offline) as changing:
        if frozen is not None:
            change = changing.install_frozen(frozen)
        else:
            change = changing.install([parse_requirement(text, Path.cwd()) for text in packages or []])
    _report(change)


@kit.shows(_RESULT)
def remove(
    names: Annotated[list[str], typer.Argument(metavar="PACKAGE...", help="The packages, as they were installed")],
    yes: kit.YesOption = False,
) -> None:
    """Remove plugins that were installed by `ostler plugin install`.

    Needs no daemon. Asks first on a terminal. What only they needed is removed as well. Their tables and files stay.
    """
    kit.confirm(f"remove {kit.count_of(names, 'plugin')}", yes=yes)
    with _changing(None, offline=True) as changing:
        change = changing.remove(names)
    _report(change)


@kit.shows(_RESULT)
def replay(places: From = None, offline: Offline = False) -> None:
    """Install the same plugins again, after an upgrade.

    Needs no daemon. After an upgrade of Ostler or of Python the plugins are installed again in the recorded versions,
    and are checked against the new Ostler. Does nothing when none are installed.
    """
    with _changing(places, offline=offline) as changing:
        change = changing.replay() if changing.current.packages else None
    if change is None:
        kit.say("No plugins are installed here.")
    else:
        _report(change)


@kit.shows("ostler.cli.plugin_installation.plugin_set:PluginSet")
def freeze(
    wheels: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also copy the wheels to this directory, for --from", show_default=False),
    ] = None,
) -> None:
    """Print the installed packages with versions and hashes.

    Needs no daemon. The output is for `ostler plugin install --requirements`, on this host or on others, and for pip.
    """
    # 20 ms: only for installations.
    from ostler.cli.plugin_installation.plugin_set import PluginSet
    from ostler.plugins.plugin_directory import current_set

    directory = invocation.current_invocation().paths().plugin_dir
    found = PluginSet.read(current_set(directory))
    if wheels is not None:
        wheels.mkdir(parents=True, exist_ok=True)
        for package in found.packages:
            shutil.copyfile(directory / "wheels" / package.wheel, wheels / package.wheel)
    if kit.json_wanted():
        kit.emit(found)
        return
    for line in found.requirements().splitlines():
        kit.say(line)


def show_available(places: list[str] | None) -> None:
    """Show the plugins that the indexes of pip have, with the installed version and the newest."""
    # 20 ms: only for `list --available`.
    from tempfile import TemporaryDirectory

    from ostler.cli.plugin_installation.available import package_places, plugin_names
    from ostler.cli.plugin_installation.pip import Pip, own_packages

    installed = own_packages() | {package.name: package.version for package in _installation(None).current.packages}
    with TemporaryDirectory() as scratch:
        pip = Pip(invocation.current_invocation().environ, _source_options(places, offline=False), Path(scratch))
        found: set[str] = set()
        for place in package_places(pip.settings(), _source_options(places, offline=False)):
            try:
                found |= plugin_names(place)
            except OstlerError as error:
                kit.warn(str(error))
        rows = [
            AvailablePlugin(package=name, installed=installed.get(name), newest=pip.newest_version(name))
            for name in found
        ]
    rows.sort(key=lambda row: row.package)
    kit.show_table(
        rows, [kit.Column(title, priority=0) for title in ("package", "installed", "newest")], empty="No plugins found."
    )


@contextmanager
def _changing(places: list[str] | None, *, offline: bool) -> Iterator[PluginInstallation]:
    """Yield the installation for a change, whose steps are shown on a terminal with the time that they take."""
    # 20 ms: only for installations.
    from ostler.messaging.wire.request_context import Progress

    with kit.progress("preparing") as on_progress:
        yield _installation(places, offline=offline, on_step=lambda line: on_progress(Progress(0, 0, line)))


def _ignore_step(_line: str) -> None:
    pass


def _installation(
    places: list[str] | None, *, offline: bool = False, on_step: Callable[[str], None] = _ignore_step
) -> PluginInstallation:
    # 20 ms: only for installations.
    from ostler.cli.plugin_installation.installation import PluginInstallation
    from ostler.files import Trust  # as above

    current = invocation.current_invocation()
    paths = current.paths()
    return PluginInstallation(
        paths.plugin_dir,
        current.environ,
        trust=Trust.of_process(all=paths.trust_owner),
        sources=_source_options(places, offline=offline),
        on_step=on_step,
    )


def _source_options(places: list[str] | None, *, offline: bool) -> list[str]:
    options = ["--no-index"] if offline else []
    for place in places or []:
        if "://" not in place and not Path(place).is_dir():
            raise NotFound(f"{place} is not a directory", hint="give a directory of wheels, or an address")
        options += ["--find-links", place if "://" in place else str(Path(place).resolve())]
    return options


def _report(change: SetChange) -> None:
    if kit.json_wanted():
        kit.emit(change.result())
        return
    lines = change.lines()
    for line in lines or ["nothing has changed: the packages were installed again"]:
        kit.say(line)
    for plugin in change.plugins:
        kit.say(f"  {plugin.name} of {plugin.distribution}: checked")
    if any(line.startswith("installed ") for line in lines):
        kit.say("`ostler reload` loads what is new.")
    if any(not line.startswith("installed ") for line in lines):
        kit.say("A restart of the daemon applies what was replaced or removed.")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
