"""What is public can be imported, looked at with pydoc, and is what the pages say."""

from __future__ import annotations

import gc
import importlib
import inspect
import pydoc
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import ostler
from ostler import errors

# private: _MODULE_BY_NAME: the table of late imports is compared with what is public

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("plugins/*/README.md")])
IMPORT = re.compile(r"from (ostler(?:\.\w+)*) import (\([^)]*\)|[^\n#]*)")
TICKED = re.compile(r"`([A-Z][A-Za-z]+)(?:[.(][^`]*)?`")
# Names of the inside that pages of the inside speak of.
INSIDE = {"architecture.md", "decisions.md"}


def imports() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        for module, names in IMPORT.findall(page.read_text(encoding="utf-8")):
            for name in re.split(r"[,\s()]+", names.partition(" as ")[0]):
                if name:
                    yield page.name, module, name


@pytest.mark.parametrize(("page", "module", "name"), list(imports()))
def test_a_name_that_a_page_imports_can_be_imported(page: str, module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), page


def inside() -> set[str]:
    """Return the names of classes that our own modules define."""
    found = set()
    for path in (ROOT / "daemon" / "ostler").rglob("*.py"):
        found |= set(re.findall(r"^class ([A-Z]\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def test_a_class_that_a_page_for_authors_names_is_public() -> None:
    ours = inside()
    missing = {
        f"{page.name}: {name}"
        for page in PAGES
        if page.name not in INSIDE
        for name in TICKED.findall(page.read_text(encoding="utf-8"))
        if name in ours and name not in ostler.__all__
    }
    assert missing - {"wire.md: Identity", "hooks.md: Options", "tutorial.md: Options"} == set()


@pytest.mark.parametrize("name", ostler.__all__)
def test_a_public_name_can_be_looked_at_with_pydoc(name: str) -> None:
    gc.collect()  # pydoc lists the subclasses of a class: those that other tests made may raise when they are shown
    assert name in pydoc.render_doc(f"ostler.{name}", renderer=pydoc.plaintext)


def test_what_is_public_is_listed() -> None:
    assert set(ostler.__all__) <= set(dir(ostler))
    assert set(ostler._MODULE_BY_NAME) == set(ostler.__all__)


def test_every_error_that_a_caller_may_meet_is_public() -> None:
    tree = {name for name, found in vars(errors).items() if inspect.isclass(found) and issubclass(found, Exception)}
    assert tree <= set(ostler.__all__)


@pytest.mark.parametrize("cls", [ostler.Manager, ostler.Driver])
def test_what_self_has_is_said(cls: Any) -> None:
    text = inspect.getsource(cls.__init__)
    has = set(re.findall(r"self\.(\w+)\b[^=\n]*=", text))
    has |= {name for name, found in vars(cls).items() if isinstance(found, cached_property)}
    section = inspect.cleandoc(cls.__doc__).partition("Attributes:")[2]  # Python 3.13 strips it already
    assert has == set(re.findall(r"^ {4}(\w+):", section, re.MULTILINE))
