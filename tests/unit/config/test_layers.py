import os
import time

import msgspec
import pytest

from ostler.config import Paths, dotted, load, load_text
from ostler.config.layers import check_not_removed
from ostler.config.toml_parser import MAX_FILES
from ostler.errors import Problem, UntrustedOwner


def test_nothing_has_to_be_there(tmp_path):
    raw = load(Paths.find(str(tmp_path), {}))
    assert (raw.data, raw.problems, raw.files) == ({}, [], [])
    assert raw.nearest_origin(("daemon",)) == ""


def test_tables_merge_and_anything_else_is_replaced_by_the_later_layer(write, paths):
    raw = write({
        "ostler.toml": "[a]\nx = 1\nlist = [1, 2]\n[a.b]\ny = 1\n",
        "conf.d/20.toml": "[a]\nx = 3\n",
        "conf.d/10.toml": "[a]\nx = 2\nlist = [3]\nb.z = 2\n",
    })  # fmt: skip
    assert raw.data == {"a": {"x": 3, "list": [3], "b": {"y": 1, "z": 2}}}
    etc = paths.config_file.parent
    assert raw.origin(("a", "x")) == f"{etc}/conf.d/20.toml:2:1"
    assert raw.origin(("a", "list")) == f"{etc}/conf.d/10.toml:3:1"
    assert raw.origin(("a", "list", 0)) == f"{etc}/conf.d/10.toml:3:9"
    assert raw.origin(("a", "list", 1)) == "default"
    assert raw.origin(("a", "b", "y")) == f"{etc}/ostler.toml:5:1"
    assert raw.origin(("a", "b", "z")) == f"{etc}/conf.d/10.toml:4:3"
    assert raw.origin(("a", "nothing")) == "default"
    assert raw.nearest_origin(("a", "b", "nothing")) == f"{etc}/ostler.toml:4:1"
    assert [name.rpartition("/")[2] for name in raw.files] == ["ostler.toml", "10.toml", "20.toml"]


def test_a_table_in_place_of_a_value_and_the_other_way_round_forgets_what_was(write, paths):
    raw = write({"ostler.toml": "a = 1\n[b]\nx = 1\n", "conf.d/1.toml": "b = 2\n[a]\ny = 1\n"})
    assert raw.data == {"a": {"y": 1}, "b": 2}
    assert raw.origin(("b", "x")) == "default"
    assert raw.origin(("b",)) == f"{paths.config_file.parent}/conf.d/1.toml:1:1"


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_only_toml_files_that_are_not_hidden_are_read(write):
    leftovers = [".x.toml.swp", ".#x.toml", "#x.toml#", "x.toml~", "x.toml.rpmsave", "x.toml.dpkg-dist", "x.toml.bak"]
    raw = write({**{f"conf.d/{name}": "=" for name in [*leftovers, "x.conf"]}, "conf.d/x.toml": "x = 1"})
    assert (raw.data, raw.problems) == ({"x": 1}, [])


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_every_file_that_does_not_parse_is_reported_and_the_rest_is_read(write, paths):
    raw = write({
        "ostler.toml": "a = \n",
        "conf.d/1.toml": "b = 1\nb = 2\n",
        "conf.d/2.toml": "c = 3\n",
        "conf.d/3.toml": "[d\n",
    })  # fmt: skip
    etc = paths.config_file.parent
    assert raw.data == {"c": 3}
    assert [problem.where for problem in raw.problems] == [
        f"{etc}/ostler.toml:1:5",
        f"{etc}/conf.d/1.toml:2:6",
        f"{etc}/conf.d/3.toml:1:3",
    ]
    assert raw.problems[0].what == "not valid TOML: invalid value"


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_a_file_that_is_no_utf8_is_reported_with_its_place(write, paths):
    raw = write({"ostler.toml": 'a = "ä"\nb = "ä'.encode() + b'\xff"\n'})
    where = f"{paths.config_file}:2:7"
    assert raw.problems == [Problem(where, "byte 0xff is not valid UTF-8; save the file as UTF-8")]


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_a_byte_order_mark_is_no_mistake(write):
    assert write({"ostler.toml": b"\xef\xbb\xbfa = 1\n"}).data == {"a": 1}


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["without mark", "with mark"])
def test_a_file_as_windows_writes_it_is_read_and_its_places_are_right(write, paths, mark):
    raw = write({"ostler.toml": mark + b"a = 1\r\n[t]\r\nb = 'x'\r\n", "conf.d/1.toml": mark + b"a = 1\r\nb =\r\n"})
    assert raw.data == {"a": 1, "t": {"b": "x"}}
    assert raw.origin(("t", "b")) == f"{paths.config_file}:3:1"
    assert [problem.where for problem in raw.problems] == [f"{paths.config_file.parent}/conf.d/1.toml:2:4"]


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_what_is_no_file_is_reported_by_name(write, paths):
    etc = paths.config_file.parent
    paths.config_file.mkdir()
    (etc / "conf.d" / "1.toml").mkdir()
    os.mkfifo(etc / "conf.d" / "2.toml")  # reading it would wait for ever
    (etc / "conf.d" / "3.toml").symlink_to("nowhere")
    (etc / "conf.d" / "4.toml").symlink_to("/dev/null")
    assert [str(problem) for problem in write({}).problems] == [
        f"{etc}/ostler.toml: is a directory",
        f"{etc}/conf.d/1.toml: is a directory",
        f"{etc}/conf.d/2.toml: is not a regular file",
        f"{etc}/conf.d/3.toml: cannot be read: No such file or directory",
    ]


@pytest.mark.usefixtures("modes_count")
@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_a_file_without_permission_is_reported_by_name(write, paths):
    paths.config_file.touch(mode=0)
    (problem,) = write({}).problems
    assert str(problem) == f"{paths.config_file}: cannot be read: Permission denied"


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_a_link_that_leads_round_is_reported_by_name(write, paths):
    (paths.config_file.parent / "conf.d" / "1.toml").symlink_to("1.toml")
    (problem,) = write({}).problems
    assert "symbolic links" in problem.what


def test_a_file_nested_too_deeply_is_a_problem_and_no_crash(write):
    (problem,) = write({"ostler.toml": "a = " + "[" * 100_000}).problems
    assert "nested too deeply" in problem.what or "no TOML" in problem.what


@pytest.mark.parametrize(
    ("override", "data"),
    [
        ("a.b=4", {"a": {"b": 4}}),
        ("a.b=true", {"a": {"b": True}}),
        ('a.b="x"', {"a": {"b": "x"}}),
        ("a.b=node1", {"a": {"b": "node1"}}),
        ("a.b=5min", {"a": {"b": "5min"}}),
        ("a.b=", {"a": {"b": ""}}),
        ("a.b=[1, 2]", {"a": {"b": [1, 2]}}),
        ("a={b = 1}", {"a": {"b": 1}}),
        ('a."b.c" = x=y', {"a": {"b.c": " x=y"}}),
        ("a.b=1\nc = 2", {"a": {"b": "1\nc = 2"}}),
    ],
)
def test_an_override_is_toml_or_else_text(write, override, data):
    raw = write({}, [override])
    assert (raw.data, raw.problems) == (data, [])


def test_an_override_wins_and_says_where_it_comes_from(write):
    raw = write({"ostler.toml": "[a]\nb = 1\nc = 2\n"}, ["a.b=3", "a.b=4"])
    assert raw.data == {"a": {"b": 4, "c": 2}}
    assert raw.origin(("a", "b")) == "--set"
    assert raw.origin(("a", "c")).endswith("ostler.toml:3:1")


@pytest.mark.parametrize("override", ["", "a", "=1", "a..b=1", "a b=1", "[a]=1", "a=1\n.b=2", "a\n=1"])
def test_an_override_that_is_none_is_a_problem(write, override):
    raw = write({}, [override])
    if raw.problems:
        assert raw.problems == [Problem("--set", f'"{override}" is not a valid override; write table.key=VALUE')]
    else:
        assert raw.data == {"a": "1\n.b=2"}


def test_problems_are_sorted_by_file_line_and_column_and_said_once():
    raw = load_text("", "z.toml")
    raw.files.append("a.toml")
    wanted = [
        Problem("z.toml", "whole"),
        Problem("z.toml:2:3", "x"),
        Problem("z.toml:2:10", "x"),
        Problem("z.toml:10:1", "x"),
        Problem("a.toml:1:1", "x"),
        Problem("", "elsewhere"),
    ]
    assert raw.sort_problems([*reversed(wanted), wanted[0]]) == wanted


def test_a_path_is_shown_as_toml_writes_it():
    assert dotted(("a", "b-c", 2, "d.e", "", "ü")) == 'a.b-c[2]."d.e".""."ü"'


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_too_large_a_file_and_too_full_a_directory_are_refused_in_words(write, paths):
    etc = paths.config_file.parent
    with (etc / "conf.d" / "1.toml").open("wb") as file:
        file.truncate(40 * 2**30)
    for number in range(MAX_FILES):
        (etc / "conf.d" / f"2-{number:04}.toml").touch()
    assert [str(problem) for problem in write({}).problems] == [
        f"{etc}/conf.d: more than 500 files in this directory",
        f"{etc}/conf.d/1.toml: is larger than 1MiB",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a" + ".a" * 30_000 + " = 1", ":1:65: nested too deeply"),
        ("x = " + "[" * 5_000 + "]" * 5_000, ":1:37: nested too deeply"),
        ("\nx = 0x" + "f" * 100_000, ":2:1: number too long"),
        ("x = " + "9" * 100_000, ":1:5: number too long"),
    ],
)
def test_a_text_beyond_all_bounds_is_a_problem_with_its_place_within_a_second(write, paths, text, what):
    began = time.monotonic()
    (problem,) = write({"ostler.toml": text}).problems
    assert str(problem).startswith(f"{paths.config_file}{what}")
    assert time.monotonic() - began < 1


def test_a_key_of_the_command_line_is_bounded_as_well(write):
    (problem,) = write({}, overrides=["a" + ".a" * 30_000 + "=1"]).problems
    assert "is not a valid override" in problem.what


def test_what_later_files_replace_again_and_again_costs_no_more_than_its_size(write):
    text = "".join(f"k{number} = [1]\n" for number in range(5_000))
    began = time.monotonic()
    raw = write({"ostler.toml": text, "conf.d/1.toml": text, "conf.d/2.toml": text})
    assert raw.origin(("k7", 0)).endswith("2.toml:8:7")
    assert time.monotonic() - began < 5


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
@pytest.mark.parametrize("theirs", [".", "etc", "etc/conf.d", "etc/conf.d/1.toml", "etc/ostler.toml"])
def test_a_configuration_of_somebody_else_is_not_read(write, paths, theirs):
    write({"ostler.toml": "", "conf.d/1.toml": "[x]\ny = 1\n"})
    os.chown(paths.root / theirs, 60_001, 60_001)
    with pytest.raises(UntrustedOwner, match="belongs to uid 60001, not to root") as caught:
        load(paths)
    assert [problem.where for problem in caught.value.problems] == [str((paths.root / theirs).absolute())]
    assert load(msgspec.structs.replace(paths, trust_owner=True)).data == {"x": {"y": 1}}
    assert load(Paths.find(str(paths.root), {"OSTLER_TRUST_OWNER": "1"})).data == {"x": {"y": 1}}


def test_a_configuration_that_others_can_write_is_not_read(write, paths):
    write({"ostler.toml": ""})
    paths.config_file.chmod(0o666)
    with pytest.raises(UntrustedOwner, match=r"ostler\.toml: is writable by everyone"):
        load(paths)


@pytest.mark.failure_mode("Configuration", "a file that masks another")
@pytest.mark.parametrize("mask", [b"", b"# nothing\n", b"[b]\nx = 1\n", None])
def test_a_file_masks_those_of_its_name_in_earlier_directories(write, paths, tmp_path, mask):
    later = tmp_path / "run"
    later.mkdir()
    paths = msgspec.structs.replace(paths, config_layers=(*paths.config_layers, later))
    write({"conf.d/1.toml": "this is no TOML", "conf.d/2.toml": "[a]\nx = 2\n"})
    if mask is None:
        (later / "1.toml").symlink_to("/dev/null")
    else:
        (later / "1.toml").write_bytes(mask)
    (later / "ostler.toml").write_text("[c]\nx = 3\n")  # a name of its own in a directory: masks nothing
    paths.config_file.write_text("[d]\nx = 4\n")
    raw = load(paths)
    etc = paths.config_file.parent
    assert raw.problems == []
    assert raw.data == {"a": {"x": 2}, "c": {"x": 3}, "d": {"x": 4}} | (
        {"b": {"x": 1}} if mask and b"x" in mask else {}
    )
    assert raw.masked == {str(etc / "conf.d" / "1.toml"): str(later / "1.toml")}


@pytest.mark.failure_mode("Configuration", "a file that masks another")
@pytest.mark.parametrize("mask", [b"", b"#", None])
def test_an_empty_file_masks_nothing_at_a_reload_until_that_is_clear(write, paths, tmp_path, mask):
    """It may be in the midst of being written; a `#` in it, or a link to /dev/null, says that it is not."""
    later = tmp_path / "run"
    later.mkdir()
    paths = msgspec.structs.replace(paths, config_layers=(*paths.config_layers, later))
    write({"conf.d/1.toml": "[a]\nx = 1\n"})
    before = load(paths)
    if mask is None:
        (later / "1.toml").symlink_to("/dev/null")
    else:
        (later / "1.toml").write_bytes(mask)
    now = load(paths)
    check_not_removed(before, now)
    expected = [] if mask != b"" else [str(later / "1.toml")]
    assert [problem.where for problem in now.problems] == expected
    again = load(paths)
    check_not_removed(now, again)  # a start has accepted it
    assert again.problems == []


@pytest.mark.failure_mode("Configuration", "files of odd kinds and encodings, and leftovers of editors")
def test_a_file_beyond_the_limit_is_refused_by_name(write, paths):
    (problem,) = write({"conf.d/1.toml": "#" * (10 * 1024 * 1024)}).problems
    assert problem.where == str(paths.config_file.parent / "conf.d" / "1.toml")
    assert problem.what == "is larger than 1MiB"
