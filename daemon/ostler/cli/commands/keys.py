"""`ostler keys`: the keys by which hosts authenticate each other."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from ostler.cli import invocation, kit, without_daemon
from ostler.cli.results import KeyFile, KeyPair, KeyRow, PublicKey
from ostler.errors import Conflict, InvalidInput, NotFound, NotPermitted
from ostler.files import Trust, check_trusted, distrust_reason, make_directory, read_bounded, replace_file

KEY_FILE_NAME = "network.key"
_MAX_KEY_FILE_SIZE = 4096
"""Maximum size of a key file in bytes."""

app = kit.app(help="Create and show the keys of hosts and clients.")

_KEY_COLUMNS = [
    kit.Column("name", priority=0),
    kit.Column("role", priority=0),
    kit.Column("peer", priority=2),
    kit.Column("key", priority=1, min_width=12),
]
_FileArgument = Annotated[
    Path | None,
    typer.Argument(
        help="The file of the secret key; by default network.key in the directory of the configuration",
        show_default=False,
    ),
]


@app.command()
@kit.shows(KeyFile, KeyPair)
def new(
    file: _FileArgument = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing key")] = False,
    to_stdout: Annotated[
        bool, typer.Option("--print", help="Print the secret key instead of writing a file, for a systemd credential")
    ] = False,
    yes: kit.YesOption = False,
) -> None:
    """Create a key pair for this host, or for a client.

    The secret key is written to a file that only its owner can read; the public key is for the other hosts. With
    --force it asks first on a terminal, if there is a key: the previous one cannot be brought back.
    """
    from ostler.messaging.tcp.curve import generate_keys  # libzmq, 12 ms: not for `--help`

    keys = generate_keys()
    if to_stdout:
        kit.emit(KeyPair(secret=keys.secret, public=keys.public)) if kit.json_wanted() else kit.say(keys.secret)
        return
    path = _key_path(file)
    if force and path.exists():
        kit.confirm(f"replace the secret key in {path}", yes=yes)
    _write_key(path, keys.secret, force)
    if kit.json_wanted():
        kit.emit(KeyFile(file=str(path), public=keys.public))
        return
    kit.say(kit.printable(f"The secret key was written to {path}, the public key is {keys.public}"))
    kit.say("\nFor the daemon of this host:\n")
    kit.say(f'  [network]\n  secret_key = {{file = "{path}"}}')
    kit.say("\nOr for the command and for clients:\n")
    kit.say(kit.printable(f"  ostler --address tcp://HOST:PORT --server-key KEY --secret-key {path} status"))
    _show_peer_configuration(keys.public)


@app.command()
@kit.shows(PublicKey)
def show(file: _FileArgument = None) -> None:
    """Show the public key of a secret key, for other hosts."""
    from ostler.messaging.tcp.curve import keys_from_secret  # likewise

    public = keys_from_secret(_read_key(_key_path(file))).public
    if kit.json_wanted():
        kit.emit(PublicKey(public=public))
        return
    kit.say(public)
    _show_peer_configuration(public)


@app.command("list")
@kit.shows(KeyRow, many=True)
def list_keys() -> None:
    """List the keys that may connect, and their roles."""
    found = without_daemon.resolve_configuration().configuration
    rows = [_key_row(found, key, name) for key, name in found.network.names_by_key().items()]
    if kit.json_wanted():
        kit.emit(rows)
    elif rows:
        kit.show_table(rows, _KEY_COLUMNS)
    else:
        kit.say("No host or client is allowed to connect: [network.keys] is empty.")


def _key_row(configuration: Any, key: str, name: str) -> KeyRow:
    access, peer = configuration.access, configuration.network.peers.get(name)
    held = [role for role in ("viewer", "operator", "admin") if f"key:{name}" in getattr(access, role)]
    role = held[-1] if held else "none"
    return KeyRow(name=name, role=role, peer=peer.rpc if peer is not None else "", key=key)


def _show_peer_configuration(public: str) -> None:
    host = socket.gethostname().partition(".")[0]
    kit.say("\nOn the hosts that it talks to, with the role that it needs:\n")
    kit.say(f'  [network.keys]\n  {host} = "{public}"\n\n  [access]\n  operator = ["key:{host}"]')


def _key_path(file: Path | None) -> Path:
    return (file or invocation.current_invocation().paths().config_file.with_name(KEY_FILE_NAME)).absolute()


def _write_key(path: Path, secret: str, force: bool) -> None:
    # The file must never be incomplete, nor readable by others at any time.
    try:
        _check_target_trust(path)
        make_directory(path.parent, 0o755)
        replace_file(path, f"{secret}\n".encode("ascii"), mode=0o600, max_mode=0o640, is_new=not force)
    except FileExistsError:
        raise Conflict(
            f"{path} already exists", hint="use another file, or `--force` to replace this one", path=path
        ) from None
    except PermissionError as error:
        raise NotPermitted(
            f"cannot write {path}: {error.strerror}", hint="run this as root, or give another file"
        ) from None
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from None


def _check_target_trust(path: Path) -> None:
    """Refuse to replace a file of another user; warn about a directory whose owner can replace the key."""
    trust = Trust.of_process(all=invocation.current_invocation().paths().trust_owner)
    check_trusted([path], trust)
    there = next(folder for folder in path.parents if folder.exists())
    if why := distrust_reason(there.stat(), trust, shared=True):
        kit.warn(kit.printable(f"warning: {there} {why}: others can replace this key"))


def _read_key(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_KEY_FILE_SIZE).decode("ascii").strip()
    except FileNotFoundError:
        raise NotFound(f"key file {path} not found", hint="create one with `ostler keys new`", path=path) from None
    except PermissionError as error:
        raise NotPermitted(
            f"cannot read {path}: {error.strerror}", hint="run this as root, or as the daemon's user"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a valid key file: {error}") from None
