"""`ostler volume …`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ostler import OstlerError, format_size
from ostler.cli import kit
from ostler_volume.api_types import Snapshot, SnapshotListing, Volume, VolumeListing
from ostler_volume.images import open_own_image
from ostler_volume.upload_client import upload


class Deleted(msgspec.Struct, frozen=True):
    """The names of what was deleted."""

    deleted: list[str]


class Dropped(msgspec.Struct, frozen=True):
    """The names of volumes whose records were dropped."""

    dropped: list[str]


class Moved(msgspec.Struct, frozen=True):
    """How many volumes were moved to another backend."""

    moved: int


class AcceptedBackend(msgspec.Struct, frozen=True):
    """The backend whose directory was accepted."""

    accepted: str


_COPY_TIMEOUT = 7 * 86400.0
"""Time-out of a copy in seconds: practically none, because it reports progress and Ctrl-C cancels it."""

app = kit.app(help="Manage volumes: create, copy, attach, delete")
snapshots = kit.app(help="Manage snapshots of volumes")
app.add_typer(snapshots, name="snapshot")

_NameArgument = Annotated[str, typer.Argument(help="Name of the volume, or NAME@HOST", metavar="NAME")]
_VolumeNameArgument = Annotated[str, typer.Argument(help="Name of the volume, or NAME@HOST", metavar="VOLUME")]
_HostFilterOption = Annotated[str, typer.Option(help="Only those on this host")]
_BackendHostOption = Annotated[str, typer.Option(help="Its host; by default the local one")]
_SnapshotNameArgument = Annotated[str, typer.Argument(help="Name of the snapshot", metavar="NAME")]


@app.callback()
def choose_service(
    context: typer.Context,
    topic: Annotated[
        str, typer.Option(envvar="OSTLER_VOLUME_TOPIC", help="Topic of the service, by default volume")
    ] = "volume",
) -> None:
    """Manage volumes: create, copy, attach, delete."""
    context.obj = topic


@app.command()
@kit.shows(Volume)
def create(
    context: typer.Context,
    name: _NameArgument,
    size: Annotated[str, typer.Option(help="Size, such as 10GiB; by default that of the source")] = "",
    backend: Annotated[str, typer.Option(help="Its backend; by default the scheduler chooses")] = "",
    image: Annotated[str, typer.Option("--from", help="A raw image to copy, which you must be allowed to read")] = "",
    source: Annotated[str, typer.Option(help="A volume to clone")] = "",
    snapshot: Annotated[str, typer.Option(help="A snapshot to copy: NAME, or VOLUME@NAME")] = "",
    host: Annotated[str, typer.Option(help="Its host; by default the scheduler chooses")] = "",
) -> None:
    """Create a volume: of zeros, or from an image, a volume or a snapshot.

    If the chosen backend refuses, the next best one is tried. Deviations from the usual choice are reported.
    """
    path = str(Path(image).absolute()) if image else ""
    where: dict[str, Any] = {"host": host} if host else {}
    on_host: dict[str, Any] = {"on_host": host} if host else {}
    with kit.client(_COPY_TIMEOUT) as client:
        if path and not (source or snapshot) and not _is_in_place(client.on(**where), context.obj, path, backend):
            with open_own_image(path) as opened, kit.progress(f"creating {name}") as on_progress:
                options: dict[str, Any] = {"size": size, "backend": backend, "on_progress": on_progress, **where}
                made = upload(client, context.obj, opened, name=name, **options)
        else:
            made = kit.run_operation(
                client.on(type=Volume),
                context.obj,
                "create_volume",
                f"creating {name}",
                name=name,
                size=size,
                backend=backend,
                image=path,
                source=source,
                snapshot=snapshot,
                **on_host,
            )
    _show_created(made)


@app.command("list")
@kit.view
@kit.shows(Volume, many=True)
def list_volumes(
    context: typer.Context,
    backend: Annotated[str, typer.Option(help="Only volumes of backends with this name")] = "",
    host: _HostFilterOption = "",
) -> None:
    """List the volumes of all hosts, those of others as NAME@HOST, and report unreachable hosts."""
    with kit.client() as client:
        listed = client.on(type=VolumeListing).call(context.obj, "volume_listing", backend=backend, on_host=host)
    _warn_of(listed.unreachable)
    columns: list[str | kit.Column] = [
        kit.Column("name", lambda one: _host_argument(one.name, one.host, listed.host), priority=0),
        *_VOLUME_COLUMNS,
    ]
    kit.show_table(
        listed.volumes, columns, empty="No volumes. Create one with `ostler volume create NAME --size 10GiB`."
    )


@app.command()
@kit.view
@kit.shows(Volume)
def show(context: typer.Context, name: _NameArgument) -> None:
    """Show a volume."""
    with kit.client() as client:
        kit.show_fields(client.on(type=Volume).call(context.obj, "get_volume", name=name), names=_VOLUME_FIELDS)


@app.command()
@kit.shows(Volume)
def extend(
    context: typer.Context,
    name: _NameArgument,
    size: Annotated[str, typer.Argument(help="The new size, such as 20GiB")],
) -> None:
    """Extend a volume."""
    with kit.client() as client:
        label = f"extending {name}"
        done = kit.run_operation(client.on(type=Volume), context.obj, "extend_volume", label, name=name, size=size)
    _show(done, f"extended volume {done.name} on {done.host} to {format_size(done.size)}")


@app.command()
@kit.shows(Deleted)
def delete(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    yes: kit.YesOption = False,
) -> None:
    """Delete volumes with their content. A failure of one does not stop the others.

    Asks first on a terminal.
    """
    with kit.client() as client:
        kit.confirm(f"delete {kit.count_of(names, 'volume')} with the content", yes=yes)

        def delete_one(name: str) -> str:
            found = client.on(type=Volume).call(context.obj, "get_volume", name=name)
            client.call(context.obj, "delete_volume", name=found.name, on_host=found.host)
            return f"volume {found.name} on {found.host}"

        _for_each(names, delete_one)


@app.command()
@kit.shows(Volume)
def attach(context: typer.Context, name: _NameArgument) -> None:
    """Attach a volume as a block device of its host, and print its path, with the host if it is not the local one."""
    with kit.client() as client:
        here = client.on(type=DaemonHost).call("ostler", "status").host
        done = client.on(type=Volume).call(context.obj, "attach_volume", name=name)
    _show(done, done.device if done.host == here else f"{done.device} on {done.host}")


@app.command()
@kit.shows(Volume)
def detach(context: typer.Context, name: _NameArgument) -> None:
    """Detach a volume: remove its block device."""
    with kit.client() as client:
        done = client.on(type=Volume).call(context.obj, "detach_volume", name=name)
    _show(done, f"detached volume {done.name} on {done.host}")


@app.command()
@kit.shows(Volume)
def manage(
    context: typer.Context,
    name: _NameArgument,
    backend: Annotated[str, typer.Option(help="Backend of the file; not needed if only one has it")] = "",
    host: _BackendHostOption = "",
) -> None:
    """Manage a file without a record as a volume, with its snapshots."""
    with kit.client() as client:
        done = client.on(type=Volume).call(context.obj, "manage_volume", name=name, backend=backend, on_host=host)
    _show(done, f"volume {done.name} ({format_size(done.size)}) on backend {done.backend} of {done.host} is managed")


@app.command()
@kit.shows(Dropped)
def forget(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    yes: kit.YesOption = False,
) -> None:
    """Drop the records of volumes without changing their files.

    This frees the names of a backend that is gone. Asks first on a terminal.
    """
    with kit.client() as client:
        kit.confirm(f"drop the record of {kit.count_of(names, 'volume')}", yes=yes)

        def forget_one(name: str) -> str:
            client.call(context.obj, "forget_volume", name=name)
            return f"record of volume {name}"

        _for_each(names, forget_one, "dropped")


@app.command("move-backend")
@kit.shows(Moved)
def move_backend(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="The backend in the records", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="The backend that has the files now", metavar="NEW")],
    force: Annotated[bool, typer.Option("--force", help="Even if files are missing there")] = False,
    host: _BackendHostOption = "",
) -> None:
    """Move the records of a backend that was renamed."""
    with kit.client() as client:
        moved = client.on(type=int).call(context.obj, "move_backend", old=old, new=new, force=force, on_host=host)
    if kit.json_wanted():
        kit.emit(Moved(moved))
    else:
        kit.say(kit.printable(f"moved the records of {moved} volume{'s' * (moved != 1)} to {new}"))


@app.command("accept-backend")
@kit.shows(AcceptedBackend)
def accept_backend(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the backend", metavar="BACKEND")],
    host: _BackendHostOption = "",
) -> None:
    """Accept the current directory of a backend whose identity does not match."""
    with kit.client() as client:
        client.call(context.obj, "accept_backend", name=name, on_host=host)
    if kit.json_wanted():
        kit.emit(AcceptedBackend(name))
    else:
        kit.say(
            kit.printable(
                f"the backend {name} will accept its directory when it is initialised next; see `ostler status`"
            )
        )


@snapshots.command("create")
@kit.shows(Snapshot)
def create_snapshot(context: typer.Context, volume: _VolumeNameArgument, name: _SnapshotNameArgument) -> None:
    """Create a snapshot of a volume."""
    label = f"creating a snapshot of {volume}"
    with kit.client(_COPY_TIMEOUT) as client:
        snapshot = client.on(type=Snapshot)
        made = kit.run_operation(snapshot, context.obj, "create_snapshot", label, volume=volume, name=name)
    _show(made, f"created snapshot {made.volume}@{made.name} on {made.host}")


@snapshots.command("list")
@kit.view
@kit.shows(Snapshot, many=True)
def list_snapshots(
    context: typer.Context,
    volume: Annotated[
        str, typer.Argument(help="Only the snapshots of this volume, or VOLUME@HOST", metavar="VOLUME")
    ] = "",
    host: _HostFilterOption = "",
) -> None:
    """List the snapshots of all hosts, those of others as VOLUME@HOST, and report unreachable hosts."""
    with kit.client() as client:
        listed = client.on(type=SnapshotListing).call(context.obj, "snapshot_listing", volume=volume, on_host=host)
    _warn_of(listed.unreachable)
    columns: list[str | kit.Column] = [
        kit.Column("volume", lambda one: _host_argument(one.volume, one.host, listed.host), priority=0, key=True),
        *_SNAPSHOT_COLUMNS,
    ]
    kit.show_table(
        listed.snapshots, columns, empty="No snapshots. Create one with `ostler volume snapshot create VOLUME NAME`."
    )


@snapshots.command("delete")
@kit.shows(Deleted)
def delete_snapshot(
    context: typer.Context,
    volume: _VolumeNameArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    yes: kit.YesOption = False,
) -> None:
    """Delete snapshots of a volume. A failure of one does not stop the others.

    Asks first on a terminal.
    """
    with kit.client() as client:
        kit.confirm(f"delete {kit.count_of(names, 'snapshot')} of volume {volume}", yes=yes)
        found = client.on(type=Volume).call(context.obj, "get_volume", name=volume)

        def delete_one(name: str) -> str:
            client.call(context.obj, "delete_snapshot", volume=found.name, name=name, on_host=found.host)
            return f"snapshot {found.name}@{name} on {found.host}"

        _for_each(names, delete_one)


class DaemonHost(msgspec.Struct):
    """The part of the daemon's status that is used here."""

    host: str = ""


def _is_in_place(client: Any, topic: str, path: str, backend: str) -> bool:
    """Return whether the daemon can use an image by its path; any other file is read here and uploaded."""
    directories = client.on(type=list[str]).call(topic, "image_directories", backend=backend)
    return any(Path(path).is_relative_to(directory) for directory in directories)


def _show_created(made: Volume) -> None:
    if made.note:
        kit.warn(kit.printable(f"ostler: {made.note}"))
    _show(made, f"created volume {made.name} ({format_size(made.size)}) on backend {made.backend} of {made.host}")


def _warn_of(unreachable: dict[str, str]) -> None:
    for host, why in unreachable.items():
        kit.warn(kit.printable(f"ostler: cannot query host {host}: {why}"))


def _show(thing: Volume | Snapshot, sentence: str) -> None:
    if kit.json_wanted():
        kit.emit(thing)
    else:
        kit.confirm_done(sentence)


def _for_each(names: list[str], do_one: Callable[[str], str], done: str = "deleted") -> None:
    """Do something with each name; of several refusals the last is raised, and the others are printed.

    Args:
        names: The names.
        do_one: Does it for a name; returns a description of the object.
        done: The past participle for the output, such as `deleted`.
    """
    deleted: list[str] = []
    refusal: OstlerError | None = None
    for name in names:
        try:
            what = do_one(name)
        except OstlerError as error:
            if refusal is not None:
                kit.warn(kit.printable(f"ostler: {refusal}"))
            refusal = error
        else:
            deleted.append(name)
            kit.confirm_done(f"{done} {what}")
    if kit.json_wanted() and (deleted or refusal is None):
        kit.emit({done: deleted})
    if refusal is not None:
        raise refusal


def _host_argument(name: str, host: str, here: str) -> str:
    """Return the name of a volume that is valid on every host."""
    return name if host == here else f"{name}@{host}"


def _format_size(one: Volume | Snapshot) -> str:
    return format_size(one.size)


def _format_since(one: Volume | Snapshot) -> str:
    return kit.human_time(one.since)


_SIZE_COLUMN = kit.Column("size", _format_size, right=True, priority=0)
_VOLUME_COLUMNS: tuple[str | kit.Column, ...] = (
    _SIZE_COLUMN,
    kit.Column("state", priority=0),
    kit.Column("host", priority=3),
    kit.Column("backend", priority=1),
    kit.Column("snapshots", right=True, priority=4),
    kit.Column("device", priority=2, min_width=10),
    kit.Column("source", priority=3),
    kit.Column("why", priority=1),
)
_SNAPSHOT_COLUMNS: tuple[str | kit.Column, ...] = (
    kit.Column("name", priority=0, key=True),
    _SIZE_COLUMN,
    kit.Column("state", priority=0),
    kit.Column("host", priority=3),
    kit.Column("created", lambda one: kit.human_time(one.created), priority=2, min_width=19),
    kit.Column("why", priority=1),
)
_VOLUME_FIELDS = (
    "name", kit.Column("size", lambda one: f"{format_size(one.size)} ({one.size} bytes)"), "state", "why",
    kit.Column("since", _format_since), kit.Column("created", lambda one: kit.human_time(one.created)), "backend",
    "host",
    "source", "device", "snapshots",
)  # fmt: skip
