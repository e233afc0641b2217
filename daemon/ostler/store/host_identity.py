"""Whose records these are: a host is known by the id of its machine, and its name may change."""

from __future__ import annotations

import logging
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from ostler.errors import StoreError
from ostler.store.current import current_session
from ostler.store.store import Store

_log = logging.getLogger(__name__)
MACHINE_ID = Path("/etc/machine-id")
_APPLICATION = bytes.fromhex("5d0f0a3b6f3e4c7f9a1d2b8c4e6f7a90")
"""What makes the id ours: that of the machine itself is not for others, says machine-id(5)."""
_NAMESPACE = "ostler/identity"
_TABLES = (("services", "topic"), ("capabilities", "topic"), ("periodic_runs", "service"))
"""The tables with rows of hosts, each with the column of its service."""


class Identity(msgspec.Struct, frozen=True):
    """Who wrote the records: the id of the machine (empty when it has none), and the name it had."""

    machine: str
    name: str


def machine_id(path: Path = MACHINE_ID) -> str:
    """Return the id of this machine for Ostler alone, as `sd_id128_get_machine_app_specific`; empty without one."""
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):  # in a container, or at the first boot: `uninitialized`
        return ""
    if len(key) != 16 or not any(key):
        return ""
    made = bytearray(_hmac_sha256(key, _APPLICATION)[:16])
    made[6] = made[6] & 0x0F | 0x40
    made[8] = made[8] & 0x3F | 0x80
    return made.hex()


def _hmac_sha256(key: bytes, text: bytes) -> bytes:
    """Return the HMAC of a text, for a key of at most 64 bytes.

    `hmac` has OpenSSL begin its work, which costs an idle daemon four megabytes for this one sum.
    """
    sha256 = _sha256()
    padded = key.ljust(64, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in padded) + text).digest()
    outer: bytes = sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    return outer


def _sha256() -> Any:
    for name in ("_sha2", "_sha256"):  # of Python 3.12 on, and before
        with suppress(ImportError):
            return import_module(name).sha256
    return import_module("hashlib").sha256


def settle_identity(store: Store, name: str, machine: str | None = None) -> None:
    """Have the records of this host follow its name, and say so; notice records of another machine. Blocks.

    A host that cannot write now goes on with what there is: it is settled at the next start.

    Args:
        store: The records; open, and used by nobody else yet.
        name: The name of this host.
        machine: The id of this machine; by default it is read.
    """
    here = machine_id() if machine is None else machine
    kv = store.kv(_NAMESPACE)
    try:
        before = Identity(str(kv.get("machine", "")), str(kv.get("name", "")))
        # Without an id of the machine the state directory is the identity.
        now = Identity(here or before.machine, name)
        if before == now:
            return
        is_same = not before.machine or before.machine == now.machine

        def write() -> None:
            if is_same and before.name not in ("", name):
                _rename(before.name, name)
            kv.set("machine", now.machine)
            kv.set("name", name)

        store.write(write, label="identity of the host")
    except StoreError as error:
        _log.warning("whose records these are cannot be looked at: %s", error)
        return
    _tell(before, now, is_same)


def _tell(before: Identity, now: Identity, is_same: bool) -> None:
    if not is_same:
        text = (
            "the records in this state directory were made by another machine (%s): if that one still runs, this is a "
            "copy, and the two must not use the same devices or name"
        )
        _log.warning(text, before.name)
    if before.name in ("", now.name):
        return
    if is_same:
        text = "this host was named %s and is %s now: its services, journal and periodic tasks have followed"
        _log.warning(text, before.name, now.name)
    else:
        text = "the services of %s stay in the table, as those of another host; `ostler service forget` removes them"
        _log.warning(text, before.name)


def _rename(before: str, after: str) -> None:
    """Give the rows of a host to its new name; what stood there under that name gives way."""
    here = current_session()
    assert here is not None  # noqa: S101 - the store runs this
    run = here.database.execute_sql
    for table, column in _TABLES:
        same = f"host = ? AND {column} IN (SELECT {column} FROM {table} WHERE host = ?)"  # noqa: S608 - our own words
        run(f"DELETE FROM {table} WHERE {same}", (after, before))  # noqa: S608 - our own words
        run(f"UPDATE {table} SET host = ? WHERE host = ?", (after, before))  # noqa: S608 - our own words
    _rename_journal(run, before, after)


def _rename_journal(run: Any, before: str, after: str) -> None:
    taken = "SELECT id FROM event_topics WHERE host = ? AND topic IN (SELECT topic FROM event_topics WHERE host = ?)"
    for table in ("events", "event_epochs"):
        run(f"DELETE FROM {table} WHERE topic_id IN ({taken})", (after, before))  # noqa: S608 - our own words
    run(f"DELETE FROM event_topics WHERE id IN ({taken})", (after, before))  # noqa: S608 - our own words
    run("UPDATE event_topics SET host = ? WHERE host = ?", (after, before))
