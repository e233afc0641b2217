"""Builds the site of the documentation, or the manual pages: `make docs`, `make man`.

The pages of `docs/`, the READMEs of the bundled plugins and the changelog are put together in one directory, with their
links changed to it, and handed to Sphinx. The site needs no network: search, fonts and styles are in it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
PLUGINS = {path.parent.name: path for path in sorted((ROOT / "plugins").glob("*/README.md"))}
_LINK = re.compile(r"\]\(([^)#\s:]*)(#[^)\s]*)?\)")


def collect_sources(target: Path) -> None:
    """Put all pages into a directory, with links between them; other files of the repository are named, not linked."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(IMAGES, target / "images")
    pages = {path: path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    pages |= {path: f"{name}.md" for name, path in PLUGINS.items()}
    pages |= {ROOT / "CHANGELOG.md": "changelog.md", ROOT / "conf" / "docs" / "index.md": "index.md"}
    for page, name in pages.items():
        text = _LINK.sub(lambda match, page=page: _change_link(match, page, pages), page.read_text(encoding="utf-8"))
        (target / name).write_text(text, encoding="utf-8")


def _change_link(match: re.Match[str], page: Path, pages: dict[Path, str]) -> str:
    path, anchor = match[1], match[2] or ""
    if not path:
        return match[0]
    found = (page.parent / path).resolve()
    if found.is_relative_to(IMAGES):
        return f"](images/{found.name})"
    if found in pages:
        return f"]({pages[found]}{anchor})"
    return "](index.md)" if found == ROOT / "README.md" else f"] (`{found.relative_to(ROOT)}`)"


def main(kind: str, output: Path) -> int:
    """Build the site (`html`) or the manual pages (`man`); return Sphinx's exit code. Any warning is an error."""
    sources = output.parent / f"{output.name}-sources"
    collect_sources(sources)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        kind,
        "-c",
        str(ROOT / "conf" / "docs"),
    ]
    return subprocess.run([*command, str(sources), str(output)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
