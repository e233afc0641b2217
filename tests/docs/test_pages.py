"""What the pages point to is there: headings, files, tests, options, errors, and the fields of the wire."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler import errors
from ostler.config import load_text, validate
from ostler.config.core_sections import CORE_SECTIONS
from ostler.messaging.events import event
from ostler.messaging.wire import envelope

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from executable_pages import blocks  # noqa: E402

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
TICKED = re.compile(r"`([^`\n]+)`")


def prose(page: Path) -> str:
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(links()), ids=lambda each: getattr(each, "name", each))
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = page.parent / path if path else page
    assert found.exists(), f"{page.name}: {target}"
    if anchor:
        assert anchor in anchors(found), f"{page.name}: {target}, there are {sorted(anchors(found))}"


def test_every_page_is_reached_from_the_readme() -> None:
    named = {target for page, target in links() if page.name == "README.md"}
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} <= named


def functions_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_files_and_tests_that_are_named_are_there() -> None:
    missing = []
    for page in PAGES:
        for text in TICKED.findall(prose(page)):
            found = re.fullmatch(
                r"(?:(tests|daemon/ostler|systemd|conf|plugins)/|(\w+\.py)::)[\w./-]*(?:::(\w+))?(?:.*)", text
            )
            path, _, test = text.partition("::")
            if found is None or any(sign in path for sign in " *…"):
                continue
            file = ROOT / path
            if found[2] and not file.exists():
                file = ROOT / f"tests/contract/test_transport_{path}"
            if not file.exists() or (test and test not in functions_of(file)):
                missing.append(f"{page.name}: {text}")
    assert not missing


def test_rooms_that_are_named_are_there() -> None:
    """`messaging/zmtp`, `rpc/eager_start.py`: below the package, or below `messaging`."""
    package = ROOT / "daemon" / "ostler"
    places = (package, package / "messaging", ROOT)
    missing = [
        f"{name}: {text}"
        for name in (
            "architecture.md",
            "messaging.md",
            "wire.md",
            "hosts.md",
            "access.md",
            "versions.md",
            "decisions.md",
        )
        for text in TICKED.findall(prose(DOCS / name))
        if re.fullmatch(r"[a-z_]+/[a-z_/]+(\.py)?", text) and not any((place / text).exists() for place in places)
    ]
    assert not missing


def test_tables_of_limits_and_errors_hold_options_and_errors_that_exist() -> None:
    text = (DOCS / "messaging.md").read_text(encoding="utf-8")
    options = {name for section in CORE_SECTIONS.values() for name in section.model_fields} | {
        "queue_limit",
        "max_in_flight",
    }
    limits = text.split("## Limits\n")[1].split("\n## ")[0]
    named = {
        name for line in limits.splitlines() if line.count("|") == 4 for name in TICKED.findall(line.split("|")[2])
    }
    assert named - {"credit", "[messaging]", "[operations]"} - options == set()
    messaging = [name for name in options if name.startswith(("max_", "event_queue", "retry_"))]
    assert {name for name in messaging if name not in text} == set()

    told = text.split("## Errors and what to do\n")[1]
    classes = {
        name for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.MessagingError) and found is not errors.MessagingError
    }  # fmt: skip
    assert {name for name in classes if f"`{name}`" not in told} == set()


def test_the_table_of_messages_has_every_kind_with_its_fields_in_their_order() -> None:
    text = (DOCS / "wire.md").read_text(encoding="utf-8")
    rows = {}
    for line in text.splitlines():
        if found := re.match(r"\| (\d+) \w+ \| → \w+ \| (.+) \|$", line):
            rows[int(found[1])] = [name for part in TICKED.findall(found[2]) for name in [part]]
    kinds = [*envelope.ToServer.__args__, *envelope.ToClient.__args__]
    assert rows == {
        kind.__struct_config__.tag: [field for field in kind.__struct_fields__ if field != "v"] for kind in kinds
    }
    for field in envelope.Request.__struct_fields__[1:]:
        assert f"`{field}`" in text
    for field in event.Event.__struct_fields__:
        assert re.search(rf"\b{field}\b", text)


def test_the_table_of_flags_has_every_flag() -> None:
    text = (DOCS / "wire.md").read_text(encoding="utf-8")
    flags = {int(number): name for number, name in re.findall(r"^\| (\d+) \| (\w+)[^|]*\| ", text, re.MULTILINE)}
    names = ("LENIENT", "CAST", "FANOUT", "PROGRESS", "STREAM", "RETRY", "SUBMIT")
    assert flags == {0: "call", **{getattr(envelope, name): name.lower() for name in names}}


def test_reasons_of_garbage_stand_in_the_page() -> None:
    """Those that the code counts, wherever it does."""
    reasons = set()
    for path in (ROOT / "daemon/ostler/messaging").rglob("*.py"):
        if path.name == "losses.py":
            continue  # why a client of a forked process has lost its answer: nothing that anybody sent
        reasons |= set(re.findall(r'reason="(\w+)"', path.read_text()))
        reasons |= set(re.findall(r'on_garbage\([^,"]+, "(\w+)"', path.read_text()))
    text = (DOCS / "wire.md").read_text(encoding="utf-8")
    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()


def examples(language: str, *names: str) -> Iterator[tuple[str, str]]:
    for name in names:
        for block in blocks(DOCS / f"{name}.md"):
            if block.language == language:
                yield f"{name}:{block.line}", block.text


@pytest.mark.parametrize(("where", "text"), list(examples("python", "messaging", "hosts", "access", "versions")))
def test_an_example_in_python_is_python_and_takes_from_ostler_what_is_there(where: str, text: str) -> None:
    module = ast.parse(text, where, mode="exec")
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ostler"):
            found = __import__(node.module or "", fromlist=["x"])
            assert all(hasattr(found, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize(("where", "text"), list(examples("toml", "messaging", "access")))
def test_an_example_of_the_configuration_is_valid(where: str, text: str) -> None:
    # Passing is the assertion: an invalid one raises.
    validate(load_text(text), {}, {})


@pytest.mark.parametrize("page", ["security.md", "reliability.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"`((?:tests|plugins)/[\w/.-]+\.py)::(test_\w+)", (DOCS / page).read_text(encoding="utf-8"))
    assert len(named) > 5
    missing = [
        f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not missing
