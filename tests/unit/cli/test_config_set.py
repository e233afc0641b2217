"""`config set` and `unset`: which file is edited, what is kept, and what is refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ostler.cli import config_set
from ostler.config import Field, Secret
from ostler.config.core_sections import CORE_SECTIONS
from ostler.config.paths import Paths


@pytest.fixture
def etc(tmp_path: Path, ostler: Any) -> Path:
    (tmp_path / "etc" / "conf.d").mkdir(parents=True)
    ostler.environ["OSTLER_ROOT"] = str(tmp_path)
    return tmp_path / "etc"


@pytest.fixture
def layered(etc: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a directory of packages before its file; returns that directory."""
    package = etc.parent / "lib"
    package.mkdir()
    find = Paths.find

    def with_package(*rest: Any, **named: Any) -> Paths:
        found = find(*rest, **named)
        return replace(found, config_layers=(package, *found.config_layers))

    monkeypatch.setattr(Paths, "find", with_package)  # only root could write to /usr/lib/ostler
    return package


def written(file: Path, text: str) -> Path:
    file.write_bytes(text.encode())
    return file


def test_the_last_file_that_sets_the_option_is_edited(ostler: Any, etc: Path) -> None:
    main = written(etc / "ostler.toml", "[log]\nlevel = 'info'\n")
    later = written(etc / "conf.d" / "50-log.toml", "# ours\n[log]\nlevel = 'warning' # why\n")
    code, out, err = ostler("config", "set", "log.level", "debug")
    assert (code, err) == (0, "")
    assert out == f'log.level = "debug" was written to {later}; `ostler reload` applies it\n'
    assert later.read_text() == '# ours\n[log]\nlevel = "debug" # why\n'
    assert main.read_text() == "[log]\nlevel = 'info'\n"
    assert f"and is now the one of {main}:2:1" in ostler("config", "unset", "log.level").out
    assert later.read_text() == "# ours\n[log]\n"


def test_a_file_of_a_package_is_not_edited(ostler: Any, etc: Path, layered: Path) -> None:
    package = written(layered / "10-vendor.toml", "[log]\nlevel = 'info'\n")
    assert ostler("config", "set", "log.level", "debug").code == 0
    assert "debug" in (etc / "conf.d" / "90-set.toml").read_text()
    assert package.read_text() == "[log]\nlevel = 'info'\n"
    code, _, err = ostler("config", "set", "log.format", "json", "--file", "10-vendor.toml")
    assert (code, f"10-vendor.toml would mask {package}, all of whose values would be lost" in err) == (2, True)
    assert not (etc / "conf.d" / "10-vendor.toml").exists()


@pytest.mark.parametrize("name", ["x.conf", ".x.toml", "../x.toml", "/tmp/x.toml", "conf.d", ".", "a/../../x.toml"])
def test_a_file_that_would_not_be_read_is_refused(ostler: Any, etc: Path, name: str) -> None:
    code, _, err = ostler("config", "set", "log.level", "debug", "--file", name)
    assert (code, "is not read as a part of the configuration; nothing was written" in err) == (2, True)
    assert list(etc.rglob("*.toml")) == []


def test_another_file_is_edited_when_it_is_named(ostler: Any, etc: Path) -> None:
    assert ostler("config", "set", "log.level", "debug", "--file", "20-mine.toml").code == 0
    assert ostler("config", "set", "log.format", "json", "--file", str(etc / "ostler.toml")).code == 0
    assert 'log.level = "debug"' in (etc / "conf.d" / "20-mine.toml").read_text()
    assert 'log.format = "json"' in (etc / "ostler.toml").read_text()


@pytest.mark.failure_mode("Configuration", "a value that is written where it has no effect")
def test_a_value_without_effect_is_refused_and_what_stays_is_said(ostler: Any, etc: Path) -> None:
    written(etc / "ostler.toml", "[log.levels]\na = 'info'\n")
    later = written(etc / "conf.d" / "50.toml", "[log.levels]\nb = 'info'\n")
    code, _, err = ostler("config", "set", "log.levels.b", "debug", "--file", "ostler.toml")
    assert (code, f"log.levels.b is set at {later}:2:1, which is read after {etc}/ostler.toml" in err) == (1, True)
    code, _, err = ostler("config", "set", "log.levels", "{c = 'debug'}")
    assert (code, err) == (0, f"note: {etc}/ostler.toml sets log.levels.a as well, which stays\n")
    assert later.read_text() == '[log.levels]\nc = "debug"\n'


@pytest.mark.failure_mode("Configuration", "a link in the place of a file that is written")
@pytest.mark.parametrize("is_directory", [False, True])
def test_a_link_is_neither_replaced_nor_followed(ostler: Any, etc: Path, is_directory: bool) -> None:
    elsewhere = etc.parent / "elsewhere"
    elsewhere.mkdir()
    target = written(elsewhere / "x.toml", "[log]\nlevel = 'info'\n")
    if is_directory:
        (etc / "conf.d").rmdir()
        (etc / "conf.d").symlink_to(elsewhere)
    else:
        (etc / "conf.d" / "x.toml").symlink_to(target)
    code, _, err = ostler("config", "set", "log.level", "debug")
    assert (code, "is a symbolic link to " in err) == (1, True)
    assert target.read_text() == "[log]\nlevel = 'info'\n"
    assert (etc / "conf.d" / "x.toml").read_text() == "[log]\nlevel = 'info'\n"


def test_an_unusual_file_keeps_its_mark_and_line_ends(ostler: Any, etc: Path) -> None:
    file = written(etc / "ostler.toml", "\ufeff# a\r\n[log]\n# b\r\nlevel = 'info' # c\r\n")
    file.chmod(0o604)
    assert ostler("config", "set", "log.level", "debug").code == 0
    assert ostler("config", "set", "log.format", "json", "--file", "ostler.toml").code == 0
    expected = '\ufeff# a\r\n[log]\n# b\r\nlevel = "debug" # c\r\nformat = "json"\r\n'
    assert file.read_bytes().decode() == expected
    assert file.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[log]\nx = '\xff'\n", "line 2 is not valid UTF-8"),
        (b"[log\n", "not valid TOML"),
        (b"#" * (2**20 + 1), "is larger than 1MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_left_alone(ostler: Any, etc: Path, content: bytes, said: str) -> None:
    (etc / "ostler.toml").write_bytes(content)
    code, _, err = ostler("config", "set", "log.level", "debug", "--file", "ostler.toml")
    assert (code in (1, 2, 78), said in err, "Traceback" in err) == (True, True, False)
    assert (etc / "ostler.toml").read_bytes() == content


@pytest.mark.failure_mode("Configuration", "a disk that is full while a file is written")
def test_a_full_disk_leaves_the_file_as_it_was(ostler: Any, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(etc / "ostler.toml", "[log]\nlevel = 'info'\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # a full disk can be made by root only
    code, _, err = ostler("config", "set", "log.level", "debug")
    assert (code, "No space left on device" in err, str(file) in err) == (1, True, True)
    assert file.read_text() == "[log]\nlevel = 'info'\n"
    assert sorted(path.name for path in etc.iterdir()) == ["conf.d", "ostler.toml"]


def test_a_file_that_this_user_may_not_write_is_named(ostler: Any, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(etc / "ostler.toml", "[log]\nlevel = 'info'\n")
    really_open = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if path == file and flags & os.O_WRONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really_open(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)  # root may write everything
    code, _, err = ostler("config", "set", "log.level", "debug")
    assert (code, err.splitlines()[0]) == (1, f"ostler: {file} cannot be edited: Permission denied")


def test_what_another_program_wrote_meanwhile_is_not_lost(
    ostler: Any, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(etc / "ostler.toml", "[log]\nlevel = 'info'\n")
    resolve = config_set.without_daemon.resolve_configuration

    def edit_meanwhile(*rest: Any, **named: Any) -> Any:
        found = resolve(*rest, **named)
        if named.get("given"):
            file.write_text("[log]\nlevel = 'error'\n")
        return found

    monkeypatch.setattr(config_set.without_daemon, "resolve_configuration", edit_meanwhile)  # at this very moment
    code, _, err = ostler("config", "set", "log.level", "debug")
    assert (code, f"{file} was changed by another program meanwhile; nothing was written" in err) == (1, True)
    assert file.read_text() == "[log]\nlevel = 'error'\n"


def test_the_last_value_of_a_file_leaves_no_empty_file(ostler: Any, etc: Path) -> None:
    file = written(etc / "ostler.toml", "log.level = 'info'\n")
    assert ostler("config", "unset", "log.level").code == 0
    assert file.read_text() == "#\n"


@pytest.mark.parametrize(
    "key", ["log", "a b.c", "log.level.", ".log.level", "log..level", "log.level[x]", "log\n.a", ""]
)
def test_a_key_that_is_none_is_refused(ostler: Any, etc: Path, key: str) -> None:
    code, _, err = ostler("config", "set", "--", key, "1")
    assert (code, "is not a valid option" in err) == (2, True)


def test_an_item_of_a_list_is_set_and_unset(ostler: Any, etc: Path) -> None:
    file = written(etc / "ostler.toml", "[plugins]\ndisabled = [ # off\n  'a', # one\n  'b', # two\n]\n")
    assert ostler("config", "set", "plugins.disabled[1]", "c").code == 0
    assert file.read_text() == "[plugins]\ndisabled = [ # off\n  'a', # one\n  \"c\", # two\n]\n"
    assert ostler("config", "unset", "plugins.disabled[0]").code == 0
    assert json.loads(ostler("config", "cat", "plugins.disabled", "--json").out)[0]["value"] == ["c"]


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log(CORE_SECTIONS["log"]):  # type: ignore[misc, name-defined] # a class of the registry
        """One whose level was called verbosity."""

        level: str = Field("info", help="", renamed_from="verbosity", pattern="info|debug")

    monkeypatch.setitem(CORE_SECTIONS, "log", Log)  # no option of the daemon has an earlier name now


@pytest.mark.parametrize("key", ["log.verbosity", "log.level"])
def test_an_option_by_its_earlier_name_gets_its_present_one(ostler: Any, etc: Path, renamed: None, key: str) -> None:
    file = written(etc / "conf.d" / "10.toml", "[log]\nverbosity = 'info'\n# more\nformat = 'json'\n")
    code, _, err = ostler("config", "set", key, "debug")
    assert (code, "log.verbosity is now log.level" in err) == (0, True)
    assert file.read_text() == "[log]\n# more\nformat = 'json'\nlevel = \"debug\"\n"
    assert ostler("check").code == 0


def test_an_option_is_unset_by_either_name(ostler: Any, etc: Path, renamed: None) -> None:
    file = written(etc / "conf.d" / "10.toml", "[log]\nverbosity = 'info'\n")
    assert ostler("config", "unset", "log.level").code == 0
    assert file.read_text() == "[log]\n"


def test_both_names_in_two_files_are_refused(ostler: Any, etc: Path, renamed: None) -> None:
    file = written(etc / "conf.d" / "10.toml", "[log]\nverbosity = 'info'\n")
    code, _, err = ostler("config", "set", "log.level", "debug", "--file", "20.toml")
    assert (code, f"{file}:2:1: log.verbosity is now level, which is set as well" in err) == (78, True)
    assert not (etc / "conf.d" / "20.toml").exists()


def test_a_secret_is_set_by_reference_only_and_never_shown(
    ostler: Any, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Log(CORE_SECTIONS["log"]):  # type: ignore[misc, name-defined] # a class of the registry
        """One with a secret."""

        token: Secret | None = Field(None, help="")

    monkeypatch.setitem(CORE_SECTIONS, "log", Log)  # no option of the daemon is a secret now
    code, out, err = ostler("config", "set", "log.token", "hunter2")
    assert (code, "hunter2" in out + err, "a secret must not be written" in err) == (78, False, True)
    assert not list(etc.rglob("*.toml"))
    secret = written(etc.parent / "key", "hunter2")
    code, out, err = ostler("config", "set", "log.token", f'{{file = "{secret}"}}')
    assert (code, out.split(" was ")[0], err) == (0, "log.token = ***", "")
    assert str(secret) in (etc / "conf.d" / "90-set.toml").read_text()
