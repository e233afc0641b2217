"""The host that the records belong to: identified by the id of its machine, as its name may change."""

from __future__ import annotations

import logging
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from ostler.errors import StoreError
from ostler.store.session import current_session
from ostler.store.store import Store

_log = logging.getLogger(__name__)
MACHINE_ID = Path("/etc/machine-id")
_APPLICATION_ID = bytes.fromhex("5d0f0a3b6f3e4c7f9a1d2b8c4e6f7a90")
"""The application id of Ostler: by machine-id(5) the machine's own id must not be exposed."""
_NAMESPACE = "ostler/identity"
_HOST_TABLES = (
    ("services", "topic"),
    ("capabilities", "topic"),
    ("periodic_runs", "service"),
    ("periodic_history", "service"),
)
"""The tables with rows of hosts, each with the column of its service."""


class RecordOwner(msgspec.Struct, frozen=True):
    """The writer of the records: the id of its machine (empty when it has none), and its name."""

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
    made = bytearray(hmac_sha256(key, _APPLICATION_ID)[:16])
    made[6] = made[6] & 0x0F | 0x40
    made[8] = made[8] & 0x3F | 0x80
    return made.hex()


def hmac_sha256(key: bytes, text: bytes) -> bytes:
    """Return the HMAC of a text, for a key of at most 64 bytes.

    `hmac` would load OpenSSL, four megabytes of an idle daemon for this one digest.
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


def adopt_host_name(store: Store, name: str, machine: str | None = None) -> None:
    """Rename the records of this host when its name has changed; log that, and records of another machine. Blocks.

    A host that cannot write now continues with the records as they are: they are renamed at the next start.

    Args:
        store: The records; open, and not used by others yet.
        name: The name of this host.
        machine: The id of this machine; by default it is read.
    """
    here = machine_id() if machine is None else machine
    kv = store.kv(_NAMESPACE)
    try:
        before = RecordOwner(str(kv.get("machine", "")), str(kv.get("name", "")))
        # Without a machine id the state directory is the identity.
        now = RecordOwner(here or before.machine, name)
        if before == now:
            return
        is_same = not before.machine or before.machine == now.machine

        def write() -> None:
            if is_same and before.name not in ("", name):
                _rename_rows(before.name, name)
            kv.set("machine", now.machine)
            kv.set("name", name)

        store.write(write, label="identity of the host")
    except StoreError as error:
        _log.warning("cannot check which host these records belong to: %s", error)
        return
    _log_change(before, now, is_same)


def _log_change(before: RecordOwner, now: RecordOwner, is_same: bool) -> None:
    if not is_same:
        text = (
            "the records in this state directory are from another machine (%s): if that one still runs, this is a "
            "copy, and the two must not use the same devices or name"
        )
        _log.warning(text, before.name)
    if before.name in ("", now.name):
        return
    if is_same:
        text = (
            "this host was renamed from %s to %s: its services, journal, operations and periodic tasks were renamed "
            "with it"
        )
        _log.warning(text, before.name, now.name)
    else:
        text = "the services of %s stay in the table as those of another host; `ostler service delete` removes them"
        _log.warning(text, before.name)


def _rename_rows(before: str, after: str) -> None:
    """Rename the rows of a host; existing rows of the new name are replaced."""
    here = current_session()
    assert here is not None  # noqa: S101 - the store runs this
    run = here.database.execute_sql
    for table, column in _HOST_TABLES:
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
    run("UPDATE operations SET host = ? WHERE host = ?", (after, before))
