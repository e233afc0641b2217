"""`ostler keys`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import EXIT_FAILURE
from ostler.messaging.tcp.curve import generate_keys, keys_from_secret


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_a_new_key_is_written_for_its_owner_alone_and_never_over_another(ostler: Any, root: Path) -> None:
    done = ostler("--root", str(root), "keys", "new")
    file = root / "etc" / "network.key"
    secret = file.read_text().strip()
    assert done.code == 0, done.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keys_from_secret(secret).public in done.out
    assert secret not in done.out
    assert f'secret_key = {{file = "{file}"}}' in done.out
    again = ostler("--root", str(root), "keys", "new")
    assert again.code == EXIT_FAILURE
    assert "already exists" in again.err
    assert file.read_text().strip() == secret
    assert ostler("--root", str(root), "keys", "new", "--force").code == 0
    assert file.read_text().strip() != secret
    assert [each.name for each in file.parent.iterdir()] == ["network.key"]


def test_a_key_can_be_printed_for_a_credential(ostler: Any, root: Path) -> None:
    done = ostler("--root", str(root), "keys", "new", "--print")
    assert keys_from_secret(done.out.strip())
    found = json.loads(ostler("--root", str(root), "--json", "keys", "new", "--print").out)
    assert keys_from_secret(found["secret"]).public == found["public"]
    assert not (root / "etc" / "network.key").exists()


def test_the_public_key_is_shown_as_others_need_it(ostler: Any, root: Path) -> None:
    keys = generate_keys()
    (root / "mine").write_text(f"{keys.secret}\n")
    done = ostler("--root", str(root), "keys", "show", str(root / "mine"))
    assert done.out.splitlines()[0] == keys.public
    assert "[network.keys]" in done.out
    assert keys.secret not in done.out
    missing = ostler("--root", str(root), "keys", "show")
    assert missing.code == EXIT_FAILURE
    assert "create one with `ostler keys new`" in missing.err
    (root / "mine").write_text("none")
    assert "is not a valid key" in ostler("--root", str(root), "keys", "show", str(root / "mine")).err


def test_the_keys_that_may_connect_are_listed_with_what_they_may_do(ostler: Any, root: Path) -> None:
    one, two = generate_keys(), generate_keys()
    text = f"""
[network]
secret_key = {{credential = "network-key"}}
[network.keys]
node2 = '{one.public}'
ops = '{two.public}'
[network.peers.node2]
rpc = "tcp://node2:7890"
[access]
viewer = ["key:node2"]
operator = ["key:node2"]
"""
    (root / "etc" / "ostler.toml").write_text(text)
    rows = json.loads(ostler("--root", str(root), "--json", "keys", "list").out)
    assert rows == [
        {"name": "node2", "role": "operator", "peer": "tcp://node2:7890", "key": one.public},
        {"name": "ops", "role": "none", "peer": "", "key": two.public},
    ]
    assert "node2" in ostler("--root", str(root), "keys", "list").out
    (root / "etc" / "ostler.toml").write_text("")
    assert "No host or client is allowed to connect" in ostler("--root", str(root), "keys", "list").out


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_a_key_in_a_strange_directory_is_written_with_a_warning_and_replaces_none(ostler: Any, root: Path) -> None:
    os.chown(root / "etc", 60_001, 60_001)
    (root / "victim").write_text("precious")
    (root / "etc" / ".network.key.new").symlink_to(root / "victim")
    done = ostler("--root", str(root), "keys", "new")
    assert done.code == 0
    assert f"warning: {root}/etc belongs to uid 60001, not to root" in done.err
    assert (root / "victim").read_text() == "precious"
    os.chown(root / "etc" / "network.key", 60_001, 60_001)
    assert ostler("--root", str(root), "keys", "new", "--force").code == 78
    assert ostler("--root", str(root), "keys", "new", "--force", "--trust-owner").code == 0
    assert (root / "etc" / "network.key").stat().st_uid == 60_001
    (root / "etc" / "network.key").unlink()
    (root / "etc" / "network.key").symlink_to(root / "victim")
    assert "is a symbolic link" in ostler("--root", str(root), "keys", "new", "--force").err
    assert (root / "victim").read_text() == "precious"
