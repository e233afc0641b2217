"""One value put into a text: the rest of it stays as it is."""

import pytest

from ostler.config.toml_edit import EditError, ValueNotInFile, remove_value, set_value
from ostler.config.toml_parser import parse_toml


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("", 'log.level = "info"\n'),
        ("# mine\n\nlog.level = 'debug'  # why\n", '# mine\n\nlog.level = "info"  # why\n'),
        ("[log]\n# below\nformat = 'text'\n", "[log]\nlevel = \"info\"\n# below\nformat = 'text'\n"),
        ("[log]", '[log]\nlevel = "info"\n'),
        ("[audit]\ncount = 1_000\n", 'log.level = "info"\n[audit]\ncount = 1_000\n'),
        ("log = {format = 'text'}  # short\n", 'log = {format = "text", level = "info"}  # short\n'),
        ("[log] # ours\r\nformat = 'text'\r\n", "[log] # ours\r\nlevel = \"info\"\r\nformat = 'text'\r\n"),
        ("log.level = '''\na'''", 'log.level = "info"'),
        ("[log.levels]\nx = 'info'\n", "log.level = \"info\"\n[log.levels]\nx = 'info'\n"),
        ("[[log]]\na = 1\n", None),
        ("log = 5\n", None),
        ("[log.level]\na = 1\n", None),
    ],
)
def test_a_value_is_put_in_and_nothing_else_changes(text: str, edited: str | None) -> None:
    if edited is None:
        with pytest.raises(EditError):
            set_value(text, ("log", "level"), "info")
        return
    assert set_value(text, ("log", "level"), "info") == edited


def test_a_table_is_put_in_and_replaced_whole() -> None:
    edited = set_value("a.b = 1\n", ("log", "levels"), {"x.y": "info", "z": "debug"})
    assert parse_toml(edited)[0] == {"a": {"b": 1}, "log": {"levels": {"x.y": "info", "z": "debug"}}}
    assert parse_toml(set_value(edited, ("log", "levels"), {"q": "info"}))[0]["log"] == {"levels": {"q": "info"}}
    assert parse_toml(set_value(edited, ("log", "levels", "z"), "info"))[0]["log"]["levels"]["z"] == "info"


@pytest.mark.parametrize(
    ("text", "path", "edited"),
    [
        ("# a\n[t]\nx = 1 # why\ny = 2\n", "t.x", "# a\n[t]\ny = 2\n"),
        ("[t]\r\nx = 1\r\ny = 2\r\n", "t.y", "[t]\r\nx = 1\r\n"),
        ("t.x = [\n 1, # one\n 2]\nu.y = 1", "t.x", "u.y = 1"),
        ("[t]\nx = {a = 1, b = 2}\n", "t.x.a", "[t]\nx = {b = 2}\n"),
        ('[t]\n  x.y = """\nz = 1\n""" # end\nz = 2\n', "t.x.y", "[t]\nz = 2\n"),
        ("[t]\nx = 1", "t.x", "[t]\n"),
    ],
)
def test_a_value_is_removed_with_its_line_and_nothing_else(text, path, edited):
    assert remove_value(text, tuple(path.split("."))) == edited


@pytest.mark.parametrize(("text", "path"), [("[t]\nx = 1\n", "t.y"), ("[t.x]\ny = 1\n", "t.x"), ("x = 1\n", "x.y")])
def test_what_is_not_a_value_is_not_removed(text, path):
    with pytest.raises(ValueNotInFile):
        remove_value(text, tuple(path.split(".")))
