"""An environment into which plugins are installed, apart from the one that the tests run in."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def create_environment(folder: Path) -> Path:
    """Return a new environment that sees the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    # `addsitedir` also reads the files there that make Ostler, installed editable, known.
    (Path(site) / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder


def run(folder: Path, *words: str) -> str:
    """Run a program in a directory and return what it printed; it must succeed."""
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
    assert ended.returncode == 0, f"{' '.join(words)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def check_plugin(folder: Path, environment: Path) -> str:
    """Install a plugin editable, without a network, and run its tests, ruff and mypy; return the Python."""
    python = str(environment / "bin" / "python")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--editable", "."]
    run(folder, sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *install)
    run(folder, python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    run(folder, python, "-m", "ruff", "check", "--no-cache")
    run(folder, python, "-m", "ruff", "format", "--check", "--no-cache")
    run(folder, python, "-m", "mypy", "--cache-dir", str(environment / "mypy"))
    return python
