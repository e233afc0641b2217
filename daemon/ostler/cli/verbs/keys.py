"""`ostler keys`: the keys by which hosts know each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ostler.cli import kit, offline, session
from ostler.errors import Conflict, InvalidInput, NotFound, NotPermitted
from ostler.files import Trust, check_trusted, distrusted, make_directory, read_bounded, replace_file

NAME = "network.key"
_LONGEST = 4096
"""Bytes of a file with a key."""

app = kit.app(help="Make and show the keys by which hosts know each other.")

_File = Annotated[
    Path | None,
    typer.Argument(
        help="The file of the secret key; by default network.key beside the configuration", show_default=False
    ),
]


@app.command()
def new(
    file: _File = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a key that is there")] = False,
    to_stdout: Annotated[
        bool, typer.Option("--print", help="Print the secret key and write no file, for a credential of systemd")
    ] = False,
) -> None:
    """Make a key pair for this host, or for a client.

    The secret key goes to a file that only its owner can read; the public one is for the other hosts.
    """
    from ostler.messaging.zmq.curve import new_keys

    keys = new_keys()
    if to_stdout:
        kit.emit({"secret": keys.secret, "public": keys.public}) if kit.json_wanted() else kit.say(keys.secret)
        return
    path = _path(file)
    _write(path, keys.secret, force)
    if kit.json_wanted():
        kit.emit({"file": str(path), "public": keys.public})
        return
    kit.say(kit.printable(f"The secret key is in {path}, the public key is {keys.public}"))
    kit.say("\nOn this host, for its daemon:\n")
    kit.say(f'  [network]\n  secret_key = {{file = "{path}"}}')
    kit.say("\nor, for the command and for clients:\n")
    kit.say(kit.printable(f"  ostler --address tcp://HOST:PORT --server-key KEY --secret-key {path} status"))
    _say_for_others(keys.public)


@app.command()
def show(file: _File = None) -> None:
    """Show the public key of a secret one, for other hosts."""
    from ostler.messaging.zmq.curve import keys_of

    public = keys_of(_read(_path(file))).public
    if kit.json_wanted():
        kit.emit({"public": public})
        return
    kit.say(public)
    _say_for_others(public)


@app.command("list")
def list_keys() -> None:
    """List who may connect, and what they may do."""
    found = offline.read().configuration
    rows = [_row(found, key, name) for key, name in found.network.names().items()]
    if kit.json_wanted():
        kit.emit(rows)
    elif rows:
        kit.show_table(rows, ["name", "role", "peer", "key"])
    else:
        kit.say("No host and no client may connect: [network.keys] is empty.")


def _row(configuration: Any, key: str, name: str) -> dict[str, Any]:
    access, peer = configuration.access, configuration.network.peers.get(name)
    held = [role for role in ("viewer", "operator", "admin") if f"key:{name}" in getattr(access, role)]
    return {
        "name": name,
        "role": held[-1] if held else "none",
        "peer": peer.rpc if peer is not None else "",
        "key": key,
    }


def _say_for_others(public: str) -> None:
    import socket

    host = socket.gethostname().partition(".")[0]
    kit.say("\nOn the hosts that it may talk to, with the role it needs:\n")
    kit.say(f'  [network.keys]\n  {host} = "{public}"\n\n  [access]\n  operator = ["key:{host}"]')


def _path(file: Path | None) -> Path:
    return (file or session.current().paths().config_file.with_name(NAME)).absolute()


def _write(path: Path, secret: str, force: bool) -> None:
    # A key is never half there, and never readable by others, not for a moment.
    try:
        _check_place(path)
        make_directory(path.parent, 0o755)
        replace_file(path, f"{secret}\n".encode("ascii"), mode=0o600, most=0o640, new=not force)
    except FileExistsError:
        raise Conflict(
            f"{path} is there already", hint="use another file, or `--force` to replace this one", path=path
        ) from None
    except PermissionError as error:
        raise NotPermitted(
            f"{path} cannot be written: {error.strerror}", hint="as root, or name another file"
        ) from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from None


def _check_place(path: Path) -> None:
    """Refuse to replace a file of somebody else; warn of a directory whose owner can take the key away."""
    trust = Trust.of_process(all=session.current().paths().trust_owner)
    check_trusted([path], trust)
    there = next(folder for folder in path.parents if folder.exists())
    if why := distrusted(there.stat(), trust, shared=True):
        kit.warn(kit.printable(f"warning: {there} {why}: another key may be put in the place of this one"))


def _read(path: Path) -> str:
    try:
        return read_bounded(path, _LONGEST).decode("ascii").strip()
    except FileNotFoundError:
        raise NotFound(f"there is no key in {path}", hint="make one with `ostler keys new`", path=path) from None
    except PermissionError as error:
        raise NotPermitted(
            f"{path} cannot be read: {error.strerror}", hint="as root, or as the daemon's user"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as a key: {error}") from None
