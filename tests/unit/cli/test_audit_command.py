"""`ostler audit`: from the daemon, from its database, and as it comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ostler.cli.commands.audit import follow_entries, parse_moment
from ostler.errors import DaemonNotRunning, InvalidInput
from ostler.store import AuditRecords, Store
from ostler.types import AuditEntry

ENTRY = AuditEntry(
    number=3, at=1.0, who="uid 1000", user="bob", uid=1000, pid=7, topic="volume", method="create",
    arguments='{"name":"a\\u0007"}', result="Busy", text="no room\x07", request_id="r-1", seconds=0.5, times=4,
)  # fmt: skip


def test_entries_are_a_table_with_who_what_and_how_it_ended(ostler: Any, client: Any) -> None:
    client.answers["ostler", "audit"] = lambda **wanted: [ENTRY]
    found = ostler("audit", "--who", "bob", "--failed", "--limit", "5").out
    assert "bob (7)" in found
    assert "volume.create" in found
    assert "Busy (4 times): no room" in found
    assert "\x07" not in found
    assert client.calls == [("ostler", "audit", {"who": "bob", "method": "", "since": 0.0, "failed": True, "limit": 5})]
    assert json.loads(ostler("audit", "--json").out)[0]["request_id"] == "r-1"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0.0),
        ("2h", 1_800_000_000.0 - 7200),
        ("2027-01-15", 1_799_971_200.0),
        ("2027-01-15T09:00", 1_800_003_600.0),
        ("2027-01-15T09:00+00:00", 1_800_003_600.0),
    ],
)
def test_since_is_a_time_or_a_time_span_back(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from ostler.cli import invocation

    with invocation.use_invocation(invocation.Invocation(now=lambda: 1_800_000_000.0)):
        assert parse_moment(text) == seconds


def test_a_time_that_is_none_is_said(ostler: Any) -> None:
    with pytest.raises(InvalidInput, match="not a valid time"):
        parse_moment("yesterday")
    assert ostler("audit", "--since", "yesterday").code == 2


def test_following_asks_for_what_is_new(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ostler.cli import invocation

    asked: list[int] = []

    def answer(after: int = 0, **wanted: Any) -> list[AuditEntry]:
        asked.append(after)
        return [ENTRY] if not after else []

    client.answers["ostler", "audit"] = answer
    # The command waits between two questions, and has nothing else to do meanwhile.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with invocation.use_invocation(invocation.Invocation(connect=client.connect)):
        entries = follow_entries({"limit": 1})
        assert next(entries) is ENTRY
        client.answers["ostler", "audit"] = lambda after=0, **wanted: (asked.append(after), [ENTRY])[1]
        next(entries)
    assert asked == [0, 3]


def test_without_a_daemon_its_database_is_read(ostler: Any, client: Any, tmp_path: Path) -> None:
    client.answers["ostler", "audit"] = DaemonNotRunning("the daemon is not running")
    assert ostler("--root", str(tmp_path), "audit").code == 3
    store = Store.open(tmp_path / "state" / "ostler.db")
    store.write(lambda: AuditRecords(store).save([ENTRY, AuditEntry(at=2.0, who="x", topic="t", method="m", last=2.0)]))
    store.close()
    found = ostler("--root", str(tmp_path), "audit", "--json")
    assert [row["method"] for row in json.loads(found.out)] == ["m"]
    assert "not running" in found.err
