"""`config schema`: what editors get is valid, knows the installed plugins, and accepts what Ostler accepts."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

SHIPPED = Path(__file__).parents[3] / "conf" / "ostler.toml"


@pytest.fixture
def etc(tmp_path: Path, ostler: Any) -> Path:
    (tmp_path / "etc" / "conf.d").mkdir(parents=True)
    ostler.environ["OSTLER_ROOT"] = str(tmp_path)
    return tmp_path / "etc"


def faults(schema: Any, text: str) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(tomllib.loads(text))]


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^#(?=\S)", "", text).replace("TOPIC", "another").replace("NAME", "backend")


def test_the_schema_accepts_the_shipped_file_and_all_its_defaults(ostler: Any, etc: Path) -> None:
    text = SHIPPED.read_text()
    (etc / "ostler.toml").write_text(text)
    schema = json.loads(ostler("config", "schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert faults(schema, text) == []
    assert faults(schema, uncommented(text)) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[log]\nlevle = 'info'\n", "$.log"),
        ("[log]\nlevel = 'loud'\n", "$.log.level"),
        ("[services.volume]\nworkers = 'many'\n", "$.services.volume.workers"),
        ("[services.volume.drivers.local]\npaht = '/srv'\n", "$.services.volume.drivers.local"),
        ("[nonsense]\n", "$"),
    ],
)
def test_the_schema_finds_what_is_wrong_also_in_tables_of_plugins(
    ostler: Any, etc: Path, text: str, where: str
) -> None:
    (etc / "ostler.toml").write_text(SHIPPED.read_text())
    assert faults(json.loads(ostler("config", "schema").out), text) == [where]


def test_the_schema_is_written_beside_the_files_and_named_in_them(ostler: Any, etc: Path) -> None:
    main, drop_in, foreign = etc / "ostler.toml", etc / "conf.d" / "10.toml", etc / "conf.d" / "20.toml"
    main.write_bytes(b"\xef\xbb\xbf# a\r\n[log]\r\n")
    drop_in.write_text("log.level = 'info'\n")
    foreign.write_text("# ours\n#:schema https://example.org/x.json\n")
    (etc / "conf.d" / "30.toml").write_text("")
    schema = etc / "ostler.schema.json"
    code, out, err = ostler("config", "schema", "--write")
    assert (code, out, err) == (0, f"The schema was written to {schema} and is named in {main}, {drop_in}\n", "")
    assert json.loads(schema.read_text())["title"] == "ostler.toml"
    assert main.read_bytes() == b"\xef\xbb\xbf#:schema ./ostler.schema.json\r\n# a\r\n[log]\r\n"
    assert drop_in.read_text() == "#:schema ../ostler.schema.json\nlog.level = 'info'\n"
    assert foreign.read_text() == "# ours\n#:schema https://example.org/x.json\n"
    assert (etc / "conf.d" / "30.toml").read_text() == ""
    assert ostler("check").code == 0
    assert json.loads(ostler("config", "schema", "--write", "--json").out) == {
        "file": str(schema),
        "files": [],
        "notes": [],
    }


def test_a_file_that_config_set_makes_names_the_schema_if_there_is_one(ostler: Any, etc: Path) -> None:
    ostler("config", "set", "log.level", "debug", "--file", "10.toml")
    assert ":schema" not in (etc / "conf.d" / "10.toml").read_text()
    ostler("config", "schema", "--write")
    ostler("config", "set", "log.format", "json", "--file", "20.toml")
    lines = (etc / "conf.d" / "20.toml").read_text().splitlines()
    assert lines[0] == "#:schema ../ostler.schema.json"
    assert lines[-1] == 'log.format = "json"'


def test_a_link_gets_no_line_and_the_others_do(ostler: Any, etc: Path) -> None:
    target = etc.parent / "target.toml"
    target.write_text("log.level = 'info'\n")
    (etc / "conf.d" / "10.toml").symlink_to(target)
    (etc / "conf.d" / "20.toml").write_text("log.format = 'json'\n")
    code, out, err = ostler("config", "schema", "--write")
    assert (code, f"note: {etc}/conf.d/10.toml does not name the schema: " in err) == (0, True)
    assert out.endswith(f"named in {etc}/conf.d/20.toml\n")
    assert target.read_text() == "log.level = 'info'\n"
