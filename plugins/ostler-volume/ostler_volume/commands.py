"""`ostler volume …`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ostler import OstlerError, format_size
from ostler.cli import kit
from ostler_volume.images import open_own_image
from ostler_volume.uploading import upload
from ostler_volume.wire import Snapshot, SnapshotListing, Volume, VolumeListing

_COPY = 7 * 86400.0
"""Seconds that a copy may take: as long as it moves it is well, and Ctrl-C ends it."""

app = kit.app(help="Look after volumes: create, copy, attach, delete")
snapshots = kit.app(help="Keep the content of volumes as it is now")
app.add_typer(snapshots, name="snapshot")

_Name = Annotated[str, typer.Argument(help="Name of the volume, or NAME@HOST", metavar="NAME")]
_VolumeName = Annotated[str, typer.Argument(help="Name of the volume, or NAME@HOST", metavar="VOLUME")]
_OnlyHost = Annotated[str, typer.Option(help="Only those of this host")]
_BackendHost = Annotated[str, typer.Option(help="Its host; this one if it is not said")]
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
    host: Annotated[str, typer.Option(help="The host it is to be on; the scheduler chooses if it is not said")] = "",
) -> None:
    """Create a volume: of zeros, or from an image, a volume or a snapshot.

    When what was chosen refuses, the next best is tried. What was not as usual is said beside the answer.
    """
    path = str(Path(image).absolute()) if image else ""
    where: dict[str, Any] = {"host": host} if host else {}
    on_host: dict[str, Any] = {"on_host": host} if host else {}
    with kit.client(_COPY) as client, kit.progress(f"creating {name}") as on_progress:
        if path and not (source or snapshot) and not _is_in_place(client.on(**where), context.obj, path, backend):
            with open_own_image(path) as opened:
                options: dict[str, Any] = {"size": size, "backend": backend, "on_progress": on_progress, **where}
                _show_made(upload(client, context.obj, opened, name=name, **options))
            return
        made = client.on(type=Volume, on_progress=on_progress).call(
            context.obj,
            "create_volume",
            name=name,
            size=size,
            backend=backend,
            image=path,
            source=source,
            snapshot=snapshot,
            **on_host,
        )
    _show_made(made)


@app.command("list")
def list_volumes(
    context: typer.Context,
    backend: Annotated[str, typer.Option(help="Only the volumes of backends of this name")] = "",
    host: _OnlyHost = "",
) -> None:
    """List the volumes of all hosts, those of others as NAME@HOST; says which hosts could not be asked."""
    with kit.client() as client:
        listed = client.on(type=VolumeListing).call(context.obj, "volume_listing", backend=backend, on_host=host)
    _warn_of(listed.unreachable)
    columns: list[str | kit.Column] = [
        kit.Column("name", lambda one: _addressed(one.name, one.host, listed.host)),
        *_VOLUMES,
    ]
    kit.show_table(listed.volumes, columns, empty="no volumes yet: `ostler volume create NAME --size 10GiB` makes one")


@app.command()
def show(context: typer.Context, name: _Name) -> None:
    """Show everything about a volume."""
    with kit.client() as client:
        kit.show_fields(client.on(type=Volume).call(context.obj, "get_volume", name=name), names=_FIELDS)


@app.command()
def extend(
    context: typer.Context,
    name: _Name,
    size: Annotated[str, typer.Argument(help="The new size, such as 20GiB")],
) -> None:
    """Make a volume larger."""
    with kit.client() as client:
        done = client.on(type=Volume).call(context.obj, "extend_volume", name=name, size=size)
    _show(done, f"volume {done.name} on {done.host} has {format_size(done.size)} now")


@app.command()
def delete(context: typer.Context, names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Delete volumes; their content is gone. Each that can be deleted is."""
    with kit.client() as client:

        def delete_one(name: str) -> str:
            found = client.on(type=Volume).call(context.obj, "get_volume", name=name)
            client.call(context.obj, "delete_volume", name=found.name, on_host=found.host)
            return f"volume {found.name} on {found.host}"

        _each(names, delete_one)


@app.command()
def attach(context: typer.Context, name: _Name) -> None:
    """Make a volume a block device of the host that it is on, and print its path; with the host if that is another."""
    with kit.client() as client:
        here = client.on(type=_Here).call("ostler", "status").host
        done = client.on(type=Volume).call(context.obj, "attach_volume", name=name)
    _show(done, done.device if done.host == here else f"{done.device} on {done.host}")


@app.command()
def detach(context: typer.Context, name: _Name) -> None:
    """Take the block device of a volume away."""
    with kit.client() as client:
        done = client.on(type=Volume).call(context.obj, "detach_volume", name=name)
    _show(done, f"volume {done.name} on {done.host} is {done.state}")


@app.command()
def manage(
    context: typer.Context,
    name: _Name,
    backend: Annotated[str, typer.Option(help="Where the file is; not needed when only one backend has it")] = "",
    host: _BackendHost = "",
) -> None:
    """Take over a file without a record as a volume, with its snapshots."""
    with kit.client() as client:
        done = client.on(type=Volume).call(context.obj, "manage_volume", name=name, backend=backend, on_host=host)
    _show(done, f"volume {done.name} of {format_size(done.size)} on {done.backend} of {done.host} is managed")


@app.command()
def forget(context: typer.Context, names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Drop the records of volumes and leave their files; of a backend that is gone, this frees the names."""
    with kit.client() as client:

        def forget_one(name: str) -> str:
            client.call(context.obj, "forget_volume", name=name)
            return f"record of volume {name}"

        _each(names, forget_one, "dropped")


@app.command("move-backend")
def move_backend(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="The backend that the records name", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="The backend that has the files now", metavar="NEW")],
    force: Annotated[bool, typer.Option("--force", help="Also if it has not all of the files")] = False,
    host: _BackendHost = "",
) -> None:
    """Have the records of a backend that was renamed follow it."""
    with kit.client() as client:
        moved = client.on(type=int).call(context.obj, "move_backend", old=old, new=new, force=force, on_host=host)
    if kit.json_wanted():
        kit.emit({"moved": moved})
    else:
        kit.say(kit.printable(f"the records of {moved} volume{'s' * (moved != 1)} name {new} now"))


@app.command("accept-backend")
def accept_backend(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the backend", metavar="BACKEND")],
    host: _BackendHost = "",
) -> None:
    """Let a backend that is not the one it was take its directory as it is now."""
    with kit.client() as client:
        client.call(context.obj, "accept_backend", name=name, on_host=host)
    if kit.json_wanted():
        kit.emit({"accepted": name})
    else:
        kit.say(kit.printable(f"the backend {name} takes its directory at its next try; `ostler status` shows it"))


@snapshots.command("create")
def create_snapshot(context: typer.Context, volume: _VolumeName, name: _SnapshotName) -> None:
    """Keep the content of a volume as it is now."""
    with kit.client(_COPY) as client, kit.progress(f"keeping {volume}") as on_progress:
        made = client.on(type=Snapshot, on_progress=on_progress).call(
            context.obj, "create_snapshot", volume=volume, name=name
        )
    _show(made, f"snapshot {made.volume}@{made.name} is made on {made.host}")


@snapshots.command("list")
def list_snapshots(
    context: typer.Context,
    volume: Annotated[
        str, typer.Argument(help="Only the snapshots of this volume, or VOLUME@HOST", metavar="VOLUME")
    ] = "",
    host: _OnlyHost = "",
) -> None:
    """List the snapshots of all hosts, those of others as VOLUME@HOST; says which hosts could not be asked."""
    with kit.client() as client:
        listed = client.on(type=SnapshotListing).call(context.obj, "snapshot_listing", volume=volume, on_host=host)
    _warn_of(listed.unreachable)
    columns: list[str | kit.Column] = [
        kit.Column("volume", lambda one: _addressed(one.volume, one.host, listed.host)),
        *_SNAPSHOTS,
    ]
    kit.show_table(
        listed.snapshots, columns, empty="no snapshots yet: `ostler volume snapshot create VOLUME NAME` makes one"
    )


@snapshots.command("delete")
def delete_snapshot(
    context: typer.Context,
    volume: _VolumeName,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
) -> None:
    """Delete snapshots of a volume. Each that can be deleted is."""
    with kit.client() as client:
        found = client.on(type=Volume).call(context.obj, "get_volume", name=volume)

        def delete_one(name: str) -> str:
            client.call(context.obj, "delete_snapshot", volume=found.name, name=name, on_host=found.host)
            return f"snapshot {found.name}@{name} on {found.host}"

        _each(names, delete_one)


class _Here(msgspec.Struct):
    """What is looked at of the status of the daemon that is asked."""

    host: str = ""


def _is_in_place(client: Any, topic: str, path: str, backend: str) -> bool:
    """Return whether the daemon takes an image by its path; any other file is read here, and handed over."""
    directories = client.on(type=list[str]).call(topic, "image_directories", backend=backend)
    return any(Path(path).is_relative_to(directory) for directory in directories)


def _show_made(made: Volume) -> None:
    if made.note:
        kit.warn(kit.printable(f"ostler: {made.note}"))
    _show(made, f"volume {made.name} of {format_size(made.size)} is made on {made.backend} of {made.host}")


def _warn_of(unreachable: dict[str, str]) -> None:
    for host, why in unreachable.items():
        kit.warn(kit.printable(f"ostler: {host} could not be asked: {why}"))


def _show(thing: Volume | Snapshot, sentence: str) -> None:
    if kit.json_wanted():
        kit.emit(thing)
    else:
        kit.say(kit.printable(sentence))


def _each(names: list[str], do_one: Callable[[str], str], done: str = "deleted") -> None:
    """Do something with each that it can be done with; the last refusal is the command's, earlier ones are told.

    Args:
        names: What it is to be done with.
        do_one: Does it; returns in words with what.
        done: What is done, in a word.
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
            kit.say(kit.printable(f"{what} is {done}"))
    if kit.json_wanted() and (deleted or refusal is None):
        kit.emit({done: deleted})
    if refusal is not None:
        raise refusal


def _addressed(name: str, host: str, here: str) -> str:
    """Return a volume as it can be typed, wherever that is done."""
    return name if host == here else f"{name}@{host}"


def _size(one: Volume | Snapshot) -> str:
    return format_size(one.size)


def _since(one: Volume | Snapshot) -> str:
    return kit.human_time(one.since)


_SIZE = kit.Column("size", _size, right=True)
_VOLUMES: tuple[str | kit.Column, ...] = (
    _SIZE,
    "state",
    "host",
    "backend",
    kit.Column("snapshots", right=True),
    "device",
    "source",
    "why",
)
_SNAPSHOTS: tuple[str | kit.Column, ...] = (
    "name",
    _SIZE,
    "state",
    "host",
    kit.Column("created", lambda one: kit.human_time(one.created)),
    "why",
)
_FIELDS = (
    "name", kit.Column("size", lambda one: f"{format_size(one.size)} ({one.size} bytes)"), "state", "why",
    kit.Column("since", _since), kit.Column("created", lambda one: kit.human_time(one.created)), "backend", "host",
    "source", "device", "snapshots",
)  # fmt: skip
