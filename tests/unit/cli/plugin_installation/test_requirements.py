"""What a word of the command line asks for, and the record of what was installed for it."""

from __future__ import annotations

import http.server
import threading

import pytest

from ostler.cli.plugin_installation.available import package_places, plugin_names
from ostler.cli.plugin_installation.plugin_set import InstalledPackage, PluginSet
from ostler.cli.plugin_installation.requirements import parse_requirement, wheel_name
from ostler.errors import InvalidInput, NotFound, OstlerError, PluginError

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lamp", "lamp"),
        ("Ostler_Lamp", "ostler-lamp"),
        ("lamp==1.2", "lamp"),
        ("lamp[fast]>=1,<2", "lamp"),
        ("lamp @ https://example.org/x.whl", "lamp"),
        ("https://example.org/Lamp-1%2Bx-py3-none-any.whl#sha256=00", "lamp"),
        (" lamp ~= 1.0 ", "lamp"),
    ],
)
def test_names_are_taken_as_pip_reads_them(tmp_path, text, name) -> None:
    assert parse_requirement(text, tmp_path).name == name


@pytest.mark.parametrize("text", ["", "-r", "--index-url=x", "lamp\n--pre", "lamp;rm", "https://x/y", "a b"])
def test_what_pip_would_take_for_an_option_or_nothing_is_refused(tmp_path, text) -> None:
    with pytest.raises(InvalidInput, match="not something to install"):
        parse_requirement(text, tmp_path)


def test_paths_are_resolved_and_must_be_packages(tmp_path) -> None:
    (tmp_path / "lamp").mkdir()
    with pytest.raises(InvalidInput, match=r"no pyproject\.toml"):
        parse_requirement("./lamp", tmp_path)
    (tmp_path / "lamp" / "pyproject.toml").touch()
    assert parse_requirement("./lamp", tmp_path).source == tmp_path / "lamp"
    with pytest.raises(NotFound, match=r"none-any\.whl not found"):
        parse_requirement("lamp-1-py3-none-any.whl", tmp_path)
    (tmp_path / "Lamp_x-1-py3-none-any.whl").touch()
    found = parse_requirement("Lamp_x-1-py3-none-any.whl", tmp_path)
    assert (found.name, found.source) == ("lamp-x", None)
    (tmp_path / "lamp.whl").touch()
    with pytest.raises(InvalidInput, match="not the name of a wheel"):
        parse_requirement("./lamp.whl", tmp_path)
    (tmp_path / "lamp.txt").touch()
    with pytest.raises(InvalidInput, match="neither a wheel"):
        parse_requirement("./lamp.txt", tmp_path)


def test_names_of_wheels_with_and_without_a_build_number() -> None:
    assert wheel_name("lamp-1.0-py3-none-any.whl") == ("lamp", "1.0")
    assert wheel_name("lamp-1.0-2-py3-none-any.whl") == ("lamp", "1.0")


def test_a_frozen_set_is_read_as_it_was_written() -> None:
    packages = (
        InstalledPackage("lamp-protocol", "2.0+x", DIGEST, "", is_requested=False),
        InstalledPackage("ostler-lamp", "1!1.0.post1", DIGEST, ""),
    )
    text = PluginSet(packages=packages).requirements()
    assert PluginSet.parse(text).packages == packages
    assert PluginSet.parse(f"# by hand\n\nlamp==1 --hash=sha256:{DIGEST}\n").requested[0].name == "lamp"


@pytest.mark.parametrize(
    "line", ["lamp", "lamp==1", "lamp>=1 --hash=sha256:" + DIGEST, "-e .", "lamp==1 --hash=md5:00"]
)
def test_a_file_without_versions_and_hashes_is_refused(line) -> None:
    with pytest.raises(InvalidInput, match="package 1 is not"):
        PluginSet.parse(line)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_an_empty_file_removes_nothing(text) -> None:
    with pytest.raises(InvalidInput, match="lists no package"):
        PluginSet.parse(text)


def test_a_damaged_record_is_named_and_one_that_was_moved_away_is_none(tmp_path) -> None:
    assert PluginSet.read(None).packages == ()
    assert PluginSet.read(tmp_path / "moved away").packages == ()
    (tmp_path / "plugins.json").write_text("{")
    with pytest.raises(PluginError, match=r"plugins\.json cannot be read"):
        PluginSet.read(tmp_path)


def test_packages_are_searched_where_pip_searches() -> None:
    settings = {"index-url": "https://a/simple", "extra-index-url": "https://b\nhttps://c", "find-links": "/wheels"}
    assert package_places(settings, ["--find-links", "/x"]) == [
        "/x",
        "/wheels",
        "https://a/simple",
        "https://b",
        "https://c",
    ]
    assert package_places(settings, ["--no-index", "--find-links", "/x"]) == ["/x"]


def test_plugins_are_found_by_name_in_directories(tmp_path) -> None:
    for name in ("Ostler_Lamp-1-py3-none-any.whl", "ostler-heater-1.0.tar.gz", "lamp-1-py3-none-any.whl", "x.txt"):
        (tmp_path / name).touch()
    (tmp_path / "ostler-door").mkdir()
    assert plugin_names(str(tmp_path)) == {"ostler-lamp", "ostler-heater", "ostler-door"}
    assert plugin_names(tmp_path.as_uri()) == {"ostler-lamp", "ostler-heater", "ostler-door"}
    with pytest.raises(OstlerError, match="cannot be read"):
        plugin_names(str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match="not a kind of index"):
        plugin_names("ftp://x/simple")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/vnd.pypi.simple.v1+json", b'{"meta": {}, "projects": [{"name": "ostler-lamp"}, {"name": "x"}]}'),
        ("text/html", b'<html><a class="y" href="/simple/ostler-lamp/">ostler-lamp</a> <a href="x/">x</a></html>'),
    ],
)
def test_plugins_are_found_by_name_in_indexes(kind, body) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            assert plugin_names(f"http://127.0.0.1:{server.server_port}/simple") == {"ostler-lamp"}
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(OstlerError, match=r"index http://127\.0\.0\.1:\d+ cannot be read"):
        plugin_names(f"http://user:password@127.0.0.1:{server.server_port}")
