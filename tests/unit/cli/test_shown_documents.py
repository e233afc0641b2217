from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from ostler import WallTime
from ostler.cli import kit
from ostler.cli.command_tree import root_command
from ostler.cli.commands.help import leaves
from ostler.cli.json_values import to_shown
from ostler.cli.output_schema import output_schema
from ostler.cli.shown_types import ShownTypes, shown_types
from ostler.errors import DriverStuck
from ostler.time_text import to_rfc3339
from support.json_documents import check_documents, schemas

TEXT_ONLY = {"run", "completion", "console"}
"""Commands that show nothing for programs: the daemon itself, a script for a shell, and a prompt."""


class Lamp(msgspec.Struct, rename={"lit_at": "lit"}):
    """A lamp.

    Attributes:
        name: What it is
            called.
        lit_at: When it was lit.
        out_at: When it went out.
        watts: What it takes.
    """

    name: str
    lit_at: WallTime = 0.0
    out_at: WallTime | None = None
    watts: float = 0.0
    near: list[Lamp] = []


class Point(msgspec.Struct, array_like=True):
    at: WallTime


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (1_800_000_000.0, "2027-01-15T08:00:00.000Z"),
        (1_800_000_000.9999, "2027-01-15T08:00:00.999Z"),
        (0.001, "1970-01-01T00:00:00.001Z"),
        (253_402_300_799.0, "9999-12-31T23:59:59.000Z"),
        (253_402_300_800.0, None),
        (0.0, None),
        (-5.0, None),
        (math.inf, None),
        (math.nan, None),
    ],
)
def test_a_wall_time_is_rfc_3339_in_utc_or_nothing(moment: float, text: str | None) -> None:
    assert to_rfc3339(moment) == text


def test_wall_times_are_found_at_any_depth_and_other_numbers_stay_numbers() -> None:
    lamp = Lamp("a", 1_800_000_000.0, None, 2.5, [Lamp("b", out_at=1_800_000_001.0)])
    assert json.loads(kit.to_json({"lamps": (lamp,), "at": 3.5}, indent=0)) == {
        "lamps": [
            {
                "name": "a",
                "lit": "2027-01-15T08:00:00.000Z",
                "out_at": None,
                "watts": 2.5,
                "near": [{"name": "b", "lit": None, "out_at": "2027-01-15T08:00:01.000Z", "watts": 0.0, "near": []}],
            }
        ],
        "at": 3.5,
    }
    assert to_shown(Point(1.0)) == Point(1.0)


def test_details_of_errors_and_a_dump_have_moments_too(ostler: Any, client: Any) -> None:
    client.answers["lamp", "switch"] = DriverStuck(
        "it is stuck", since=1_800_000_000.5, seconds=3.5, tried=[{"since": 0}]
    )
    failed = json.loads(ostler("call", "lamp", "switch", "--json").err)["error"]["details"]
    assert failed == {"since": "2027-01-15T08:00:00.500Z", "seconds": 3.5, "tried": [{"since": None}]}
    client.answers["ostler", "dump"] = {"plugins": [{"name": "a", "since": 1_800_000_000.0}], "since": "boot"}
    assert json.loads(ostler("dump", "--json").out) == {
        "plugins": [{"name": "a", "since": "2027-01-15T08:00:00.000Z"}],
        "since": "boot",
    }


def test_a_schema_fits_what_is_shown_and_explains_its_fields() -> None:
    schema = output_schema("lamp list", ShownTypes((Lamp,), many=True))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(to_shown([Lamp("a", 1.0)]), schema)
    lamp = schema["$defs"]["Lamp"]
    assert lamp["description"] == "A lamp."
    assert lamp["properties"]["name"] == {"type": "string", "description": "What it is called."}
    assert lamp["properties"]["lit"]["type"] == ["string", "null"]
    assert lamp["required"] == ["name", "lit", "out_at", "watts", "near"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{**to_shown(Lamp("a")), "lit": 0.0}], schema)


def test_a_type_that_json_does_not_know_is_text() -> None:
    assert output_schema("file", ShownTypes((Path,)))["type"] == "string"


@pytest.mark.parametrize("path", sorted(schemas()))
def test_each_schema_is_valid_and_has_no_number_for_a_time(path: str) -> None:
    schema = schemas()[path]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert not [name for name, field in fields(schema) if name in TIMES and "number" in field.get("type", "")]


TIMES = {"at", "since", "created", "started", "until", "expires", "last", "beat_at"}


def fields(schema: Any) -> Any:
    if isinstance(schema, dict):
        yield from (schema.get("properties") or {}).items()
        for each in schema.values():
            yield from fields(each)


def test_every_command_says_what_it_shows() -> None:
    root = root_command()
    silent = {path for path, command in leaves(None, root, []) if shown_types(command) is None}  # type: ignore[arg-type]
    assert silent == TEXT_ONLY


def test_a_document_that_does_not_fit_is_found() -> None:
    with pytest.raises(AssertionError, match="`ostler lock list` does not show what it declares"):
        check_documents(["--root", "x", "lock", "list", "--json"], '[{"service": "a"}]')


def test_help_prints_the_schema_of_a_command_and_of_all(ostler: Any) -> None:
    one = json.loads(ostler("help", "--schema", "lock", "list").out)
    assert one["title"] == "ostler lock list"
    assert json.loads(ostler("help", "lock", "--schema").out) == {"lock list": one}
    assert {"status", "volume list"} < json.loads(ostler("help", "--schema").out).keys()
    nothing = ostler("help", "--schema", "run")
    assert (nothing.code, "shows nothing for programs" in nothing.err) == (1, True)
