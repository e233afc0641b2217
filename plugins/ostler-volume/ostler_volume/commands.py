"""`ostler volume …`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ostler import OstlerError, format_size
from ostler.cli import kit
from ostler_volume.images import open_own_image
from ostler_volume.uploading import upload
from ostler_volume.wire import Snapshot, Volume

_COPY = 7 * 86400.0
"""Seconds that a copy may take: as long as it moves it is well, and Ctrl-C ends it."""

app = kit.app(help="Look after volumes: create, copy, attach, delete")
snapshots = kit.app(help="Keep the content of volumes as it is now")
app.add_typer(snapshots, name="snapshot")

_Name = Annotated[str, typer.Argument(help="Name of the volume", metavar="NAME")]
_VolumeName = Annotated[str, typer.Argument(help="Name of the volume", metavar="VOLUME")]
_SnapshotName = Annotated[str, typer.Argument(help="Name of the snapshot", metavar="NAME")]


@app.callback()
def choose_service(
    context: typer.Context,
    topic: Annotated[
        str, typer.Option(envvar="OSTLER_VOLUME_TOPIC", help="Topic of the service, if there is another than volume")
    ] = "volume",
) -> None:
    """Look after volumes: create, copy, attach, delete."""
    context.obj = topic


@app.command()
def create(
    context: typer.Context,
    name: _Name,
    size: Annotated[str, typer.Option(help="Such as 10GiB; not needed for a copy of the same size")] = "",
    backend: Annotated[str, typer.Option(help="Where; the scheduler chooses if it is not said")] = "",
    image: Annotated[str, typer.Option("--from", help="A raw image to fill it with; one that you may read")] = "",
    source: Annotated[str, typer.Option(help="A volume to clone")] = "",
    snapshot: Annotated[str, typer.Option(help="A snapshot to make it from: NAME, or VOLUME@NAME")] = "",
) -> None:
    """Create a volume: of zeros, or from an image, a volume or a snapshot."""
    path = str(Path(image).absolute()) if image else ""
    with kit.client(_COPY) as client, kit.progress(f"creating {name}") as on_progress:
        if path and not (source or snapshot) and not _is_in_place(client, context.obj, path, backend):
            with open_own_image(path) as opened:
                options: dict[str, Any] = {"size": size, "backend": backend, "on_progress": on_progress}
                _show_made(upload(client, context.obj, opened, name=name, **options))
            return
        made = client.call(
            context.obj,
            "create_volume",
            type=Volume,
            on_progress=on_progress,
            name=name,
            size=size,
            backend=backend,
            image=path,
            source=source,
            snapshot=snapshot,
        )
    _show_made(made)


@app.command("list")
def list_volumes(
    context: typer.Context,
    backend: Annotated[str, typer.Option(help="Only the volumes of this backend")] = "",
) -> None:
    """List the volumes."""
    with kit.client() as client:
        listed = client.call(context.obj, "list_volumes", type=list[Volume], backend=backend)
    kit.show_table(listed, _VOLUMES, empty="no volumes yet: `ostler volume create NAME --size 10GiB` makes one")


@app.command()
def show(context: typer.Context, name: _Name) -> None:
    """Show everything about a volume."""
    with kit.client() as client:
        kit.show_fields(client.call(context.obj, "get_volume", type=Volume, name=name), names=_FIELDS)


@app.command()
def extend(
    context: typer.Context,
    name: _Name,
    size: Annotated[str, typer.Argument(help="The new size, such as 20GiB")],
) -> None:
    """Make a volume larger."""
    with kit.client() as client:
        done = client.call(context.obj, "extend_volume", type=Volume, name=name, size=size)
    _show(done, f"volume {done.name} has {format_size(done.size)} now")


@app.command()
def delete(context: typer.Context, names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Delete volumes; their content is gone. Each that can be deleted is."""
    with kit.client() as client:
        _each(names, "volume", lambda name: client.call(context.obj, "delete_volume", name=name))


@app.command()
def attach(context: typer.Context, name: _Name) -> None:
    """Make a volume a block device of the daemon's host, and print its path."""
    with kit.client() as client:
        done = client.call(context.obj, "attach_volume", type=Volume, name=name)
    _show(done, done.device)


@app.command()
def detach(context: typer.Context, name: _Name) -> None:
    """Take the block device of a volume away."""
    with kit.client() as client:
        done = client.call(context.obj, "detach_volume", type=Volume, name=name)
    _show(done, f"volume {done.name} is {done.state}")


@app.command()
def manage(
    context: typer.Context,
    name: _Name,
    backend: Annotated[str, typer.Option(help="Where the file is; not needed when only one backend has it")] = "",
) -> None:
    """Take over a file without a record as a volume, with its snapshots."""
    with kit.client() as client:
        done = client.call(context.obj, "manage_volume", type=Volume, name=name, backend=backend)
    _show(done, f"volume {done.name} of {format_size(done.size)} on {done.backend} is managed")


@app.command()
def forget(context: typer.Context, names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Drop the records of volumes and leave their files; of a backend that is gone, this frees the names."""
    with kit.client() as client:
        _each(names, "record of volume", lambda name: client.call(context.obj, "forget_volume", name=name), "dropped")


@app.command("move-backend")
def move_backend(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="The backend that the records name", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="The backend that has the files now", metavar="NEW")],
    force: Annotated[bool, typer.Option("--force", help="Also if it has not all of the files")] = False,
) -> None:
    """Have the records of a backend that was renamed follow it."""
    with kit.client() as client:
        moved = client.call(context.obj, "move_backend", type=int, old=old, new=new, force=force)
    if kit.json_wanted():
        kit.emit({"moved": moved})
    else:
        kit.say(kit.printable(f"the records of {moved} volume{'s' * (moved != 1)} name {new} now"))


@app.command("accept-backend")
def accept_backend(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the backend", metavar="BACKEND")]
) -> None:
    """Let a backend that is not the one it was take its directory as it is now."""
    with kit.client() as client:
        client.call(context.obj, "accept_backend", name=name)
    if kit.json_wanted():
        kit.emit({"accepted": name})
    else:
        kit.say(kit.printable(f"the backend {name} takes its directory at its next try; `ostler status` shows it"))


@snapshots.command("create")
def create_snapshot(context: typer.Context, volume: _VolumeName, name: _SnapshotName) -> None:
    """Keep the content of a volume as it is now."""
    with kit.client(_COPY) as client, kit.progress(f"keeping {volume}") as on_progress:
        made = client.call(
            context.obj, "create_snapshot", type=Snapshot, on_progress=on_progress, volume=volume, name=name
        )
    _show(made, f"snapshot {made.volume}@{made.name} is made")


@snapshots.command("list")
def list_snapshots(
    context: typer.Context,
    volume: Annotated[str, typer.Argument(help="Only the snapshots of this volume", metavar="VOLUME")] = "",
) -> None:
    """List the snapshots."""
    with kit.client() as client:
        listed = client.call(context.obj, "list_snapshots", type=list[Snapshot], volume=volume)
    kit.show_table(listed, _SNAPSHOTS, empty="no snapshots yet: `ostler volume snapshot create VOLUME NAME` makes one")


@snapshots.command("delete")
def delete_snapshot(
    context: typer.Context,
    volume: _VolumeName,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
) -> None:
    """Delete snapshots of a volume. Each that can be deleted is."""
    with kit.client() as client:
        _each(
            names,
            f"snapshot {volume}@",
            lambda name: client.call(context.obj, "delete_snapshot", volume=volume, name=name),
        )


def _is_in_place(client: Any, topic: str, path: str, backend: str) -> bool:
    """Return whether the daemon takes an image by its path; any other file is read here, and handed over."""
    directories = client.call(topic, "image_directories", type=list[str], backend=backend)
    return any(Path(path).is_relative_to(directory) for directory in directories)


def _show_made(made: Volume) -> None:
    _show(made, f"volume {made.name} of {format_size(made.size)} is made on {made.backend}")


def _show(thing: Volume | Snapshot, sentence: str) -> None:
    if kit.json_wanted():
        kit.emit(thing)
    else:
        kit.say(kit.printable(sentence))


def _each(names: list[str], what: str, delete_one: Callable[[str], Any], done: str = "deleted") -> None:
    """Delete each that can be; the last refusal is the command's, those before it are told as they come."""
    deleted: list[str] = []
    refusal: OstlerError | None = None
    for name in names:
        try:
            delete_one(name)
        except OstlerError as error:
            if refusal is not None:
                kit.warn(kit.printable(f"ostler: {refusal}"))
            refusal = error
        else:
            deleted.append(name)
            kit.say(kit.printable(f"{what}{name} is {done}" if what.endswith("@") else f"{what} {name} is {done}"))
    if kit.json_wanted() and (deleted or refusal is None):
        kit.emit({done: deleted})
    if refusal is not None:
        raise refusal


def _size(one: Volume | Snapshot) -> str:
    return format_size(one.size)


def _since(one: Volume | Snapshot) -> str:
    return kit.human_time(one.since)


_SIZE = kit.Column("size", _size, right=True)
_VOLUMES = ("name", _SIZE, "state", "backend", kit.Column("snapshots", right=True), "device", "source", "why")
_SNAPSHOTS = ("volume", "name", _SIZE, "state", kit.Column("created", lambda one: kit.human_time(one.created)), "why")
_FIELDS = (
    "name", kit.Column("size", lambda one: f"{format_size(one.size)} ({one.size} bytes)"), "state", "why",
    kit.Column("since", _since), kit.Column("created", lambda one: kit.human_time(one.created)), "backend", "host",
    "source", "device", "snapshots",
)  # fmt: skip
