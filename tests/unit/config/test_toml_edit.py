"""One value put into a text: the rest of it stays as it is."""

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from ostler.config.toml_edit import EditError, ValueNotInFile, remove_value, set_value
from ostler.config.toml_parser import parse_toml


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("", 'log.level = "info"\n'),
        ("# mine\n\nlog.level = 'debug'  # why\n", '# mine\n\nlog.level = "info"  # why\n'),
        ("[log]\n# below\nformat = 'text'\n", "[log]\n# below\nformat = 'text'\nlevel = \"info\"\n"),
        ("[log]", '[log]\nlevel = "info"\n'),
        ("[audit]\ncount = 1_000\n", '[audit]\ncount = 1_000\n\n[log]\nlevel = "info"\n'),
        ("log = {format = 'text'}  # short\n", "log = {format = 'text',level = \"info\"}  # short\n"),
        ("[log] # ours\r\nformat = 'text'\r\n", "[log] # ours\r\nformat = 'text'\r\nlevel = \"info\"\r\n"),
        ("log.level = '''\na'''", 'log.level = "info"'),
        ("[log.levels]\nx = 'info'\n", "[log.levels]\nx = 'info'\n\n[log]\nlevel = \"info\"\n"),
        ("log.format = 'text'\n[audit]\n", "log.format = 'text'\nlog.level = \"info\"\n[audit]\n"),
        (
            "[log]\n# How.\n#level = 'x'\n\n# Next\n[a]\n",
            "[log]\n# How.\n#level = 'x'\nlevel = \"info\"\n\n# Next\n[a]\n",
        ),
        ("[log]\na = 1\n\n# Next\n[b]\n", '[log]\na = 1\nlevel = "info"\n\n# Next\n[b]\n'),
        ("[log]\na = '''\n#level = 1\n'''\n", "[log]\na = '''\n#level = 1\n'''\nlevel = \"info\"\n"),
        ("[log]\nlevel = true\r\n# mixed\na = 1\r\n", '[log]\nlevel = "info"\r\n# mixed\na = 1\r\n'),
        ("a.b = 1\r\n[log]\na = 1\n", 'a.b = 1\r\n[log]\na = 1\nlevel = "info"\n'),
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
        ("[t]\nx = {a = 1, b = 2}\n", "t.x.a", "[t]\nx = { b = 2}\n"),
        ('[t]\n  x.y = """\nz = 1\n""" # end\nz = 2\n', "t.x.y", "[t]\nz = 2\n"),
        ("[t]\nx = 1", "t.x", "[t]\n"),
    ],
)
def test_a_value_is_removed_with_its_line_and_nothing_else(text, path, edited):
    assert remove_value(text, tuple(path.split("."))) == edited


@pytest.mark.parametrize(("text", "path"), [("[t]\nx = 1\n", "t.y"), ("x = 1\n", "x.y")])
def test_what_is_not_a_value_is_not_removed(text, path):
    with pytest.raises(ValueNotInFile):
        remove_value(text, tuple(path.split(".")))


def test_a_table_with_a_header_is_removed_and_changed_where_it_differs() -> None:
    text = "[t]\na = 1\n\n[t.x] # ours\ny = 1 # one\nz = 2\n\n[u]\nb = 1\n"
    assert set_value(text, ("t", "x"), {"y": 1, "z": 3, "w": [1]}) == text.replace("z = 2\n", "z = 3\nw = [1]\n")
    assert remove_value(text, ("t", "x")) == "[t]\na = 1\n\n[u]\nb = 1\n"


@pytest.mark.parametrize(
    ("text", "path", "value", "edited"),
    [
        ("x.a = [ # all\n  1, # one\n  2, # two\n]\n", "x.a", [1, 3], "x.a = [ # all\n  1, # one\n  3, # two\n]\n"),
        ("[x]\na = [1,2]\n", "x.a.1", 5, "[x]\na = [1,5]\n"),
        ("[[x.a]]\nb = 1\n[[x.a]]\nb = 2 # two\n", "x.a.1.b", 5, "[[x.a]]\nb = 1\n[[x.a]]\nb = 5 # two\n"),
        ("[[x.a]] # c\nb = 1\n", "x.a", [{"b": 1}, {"b": 2}], "[[x.a]] # c\nb = 1\n[[x.a]]\nb = 2\n"),
        ("x.a = 1\n", "x.a", True, "x.a = true\n"),
        ("x.a = 1\n", "x.a", float("nan"), "x.a = nan\n"),
        ("x.a = [1]\n", "x.a.1", 5, None),
        ("x.a = 1\n", "x.a.0", 5, None),
        ("[[x.a]]\n", "x.a.b", 5, None),
    ],
)
def test_items_of_lists_are_changed_and_the_others_keep_their_comments(text, path, value, edited):
    parts = tuple(int(part) if part.isdigit() else part for part in path.split("."))
    if edited is None:
        with pytest.raises(EditError):
            set_value(text, parts, value)
    else:
        assert set_value(text, parts, value) == edited


NAMES = st.sampled_from(["a", "b", "a b", "ü"])
VALUES = st.one_of(st.integers(-9, 9), st.booleans(), st.text(max_size=5), st.lists(st.integers(0, 9), max_size=3))
TABLES = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(VALUES, inner), max_size=3),
    max_leaves=8,
)


@given(TABLES, st.lists(NAMES, min_size=1, max_size=3), VALUES)
def test_whatever_the_text_only_the_value_changes(tables, path, value) -> None:
    text = "# first\n" + tomlkit.dumps(tables)
    try:
        edited = set_value(text, tuple(path), value)
    except EditError:
        return
    assert set_value(text.replace("\n", "\r\n"), tuple(path), value) == edited.replace("\n", "\r\n")
    before, after = parse_toml(text)[0], parse_toml(edited)[0]
    node = before
    for name in path[:-1]:
        node = node.setdefault(name, {})
    node[path[-1]] = value
    assert after == before
    assert without(parse_toml(remove_value(edited, tuple(path)))[0], path) == without(after, path)


def without(tables, path):
    """Return tables without a value, and without empty ones."""
    found = {}
    for name, value in tables.items():
        if path[:1] == [name] and len(path) == 1:
            continue
        kept = without(value, path[1:] if path[:1] == [name] else []) if isinstance(value, dict) else value
        if kept != {}:
            found[name] = kept
    return found
