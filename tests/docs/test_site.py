"""`make docs`: every page is on the site, nothing of it is fetched, and no link within it leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")}


class Links(HTMLParser):
    """Collects what a page loads, what it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (tag, name) in LOADED:
                self.loaded.append(value or "")
            if (tag, name) == ("a", "href"):
                self.links.append(value or "")
            if name == "id":
                self.anchors.add(value or "")


def build(kind: str, output: Path) -> None:
    command = [sys.executable, ROOT / "conf" / "docs" / "build.py", kind, output]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Links]:
    output = tmp_path_factory.mktemp("site") / "docs"
    build("html", output)
    return {path.name: Links(path.read_text(encoding="utf-8")) for path in output.glob("*.html")}


@pytest.mark.timeout(120)
def test_every_page_and_the_plugins_own_are_on_the_site_and_searched(site: dict[str, Links]) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {
        "ostler-volume",
        "ostler-scheduler",
        "ostler-http",
        "changelog",
        "search",
    }
    assert pages - {name.removesuffix(".html") for name in site} == set()
    linked = {link.partition("#")[0] for link in site["index.html"].links}
    assert {page for page in pages if f"{page}.html" not in linked} <= {"index", "search"}


def test_the_site_loads_nothing_from_elsewhere(site: dict[str, Links]) -> None:
    loaded = {address for page in site.values() for address in page.loaded}
    assert len(loaded) > 5
    assert {address for address in loaded if re.match(r"[a-z]+:|//", address)} == set()


def test_every_link_within_the_site_leads_to_an_anchor(site: dict[str, Links]) -> None:
    missing = []
    for name, page in site.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:|_", target) or not (target or anchor):
                continue
            found = site.get(target or name)
            if found is None or (anchor and anchor not in found.anchors):
                missing.append(f"{name}: {link}")
    assert missing == []


@pytest.mark.timeout(120)
def test_the_manual_pages_are_read_without_a_warning(tmp_path: Path) -> None:
    output = tmp_path / "man"
    build("man", output)
    pages = {path.name: path.read_text(encoding="utf-8") for path in output.glob("*.[157]")}
    assert set(pages) == {"ostler.1", "ostler.toml.5", "ostler-plugins.7"}
    for name, told in (
        ("ostler.1", "EXIT CODES"),
        ("ostler.toml.5", "SH [NETWORK]"),
        ("ostler-plugins.7", "ostler_managers"),
    ):
        assert told in pages[name]
    if shutil.which("groff") is not None:  # nothing that is tested depends on it
        for path in output.glob("*.[157]"):
            # Wide: names of options and defaults cannot be broken, so that tables do not fit into 80 columns.
            command = ["groff", "-man", "-t", "-wall", "-Wbreak", "-z", "-Tutf8", "-rLL=200n", "-K", "utf8", path]
            read = subprocess.run(command, capture_output=True, text=True, check=False)
            assert read.stderr == "", path.name
