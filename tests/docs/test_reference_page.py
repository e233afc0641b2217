"""What the daemon declares is documented, and the reverse: errors, variables, metrics, methods, events."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ostler import errors
from ostler.cli.reference import EXIT_CODES
from ostler.service.state_notifier import StateNotifier
from ostler.testing import FakeClock
from ostler.types import DriverState, DriverStatus, OperationState, ServiceState

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from reference_page import ENVIRONMENT, INTERFACES, error_classes, metrics, reference_page  # noqa: E402

PAGE = ROOT / "docs" / "reference.md"
PACKAGES = [ROOT / "daemon" / "ostler", *(ROOT / "plugins").glob("ostler-*/ostler_*")]
VARIABLE = re.compile(r"_?[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|HOME|TERM|TMPDIR")
OF_OTHERS = re.compile(r"PIP_\w+|PYTHON\w+|OTEL_\w+|PYDANTIC_DISABLE_PLUGINS|MESSAGE_ID|LISTEN_FDS_START")
"""Variables of other programs that are set or passed on, and upper-case names that are none."""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if "environ" in text:
                yield path, ast.parse(text)


def variables_read() -> set[str]:
    """Return the names of variables in modules that deal with the environment; journal fields are not such."""
    found = set()
    for path, tree in modules():
        if path.name == "journald.py":
            found.add("JOURNAL_STREAM")
            continue
        if path.name == "wsgi.py":  # its variables are those of a request (PEP 3333)
            continue
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        found |= {text for text in texts if VARIABLE.fullmatch(text) and not OF_OTHERS.fullmatch(text)}
    return found


def test_the_page_is_what_the_declarations_say() -> None:
    if os.environ.get("OSTLER_REGENERATE"):
        PAGE.write_text(reference_page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "update it with OSTLER_REGENERATE=1"


def test_every_error_says_what_it_means() -> None:
    assert len(error_classes()) > 40
    assert [cls.__name__ for cls in error_classes() if len(cls.__doc__ or "") < 20] == []


def test_every_exit_code_is_documented() -> None:
    declared = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert declared <= set(EXIT_CODES)
    assert {cls.exit_code for cls in error_classes()} <= declared


def test_every_environment_variable_is_documented_and_read() -> None:
    read = variables_read()
    assert read - set(ENVIRONMENT) == set(), "say in ENVIRONMENT what it does"
    assert set(ENVIRONMENT) - read == set(), "nothing reads it any more"


def test_every_metric_is_on_the_page_and_those_of_other_pages_exist() -> None:
    names = {name for name, *_ in metrics()}
    created = set()
    for path in (ROOT / "daemon" / "ostler").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        created |= set(re.findall(r"create_(?:counter|histogram|up_down_counter|\w*gauge)\(\s*\"([\w.]+)\"", text))
    assert names == created
    named = re.findall(
        r"`((?:ostler\.)?rpc\.server\.[\w.]+|ostler\.callers\.\w+)`", (ROOT / "docs/access.md").read_text()
    )
    assert named
    assert set(named) <= names


def test_every_endpoint_and_manager_of_ours_is_on_the_page() -> None:
    exposing = set()
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            if "testing" in path.parts or "@exposed" not in path.read_text(encoding="utf-8"):
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and any(is_exposed(each) for each in node.body):
                    exposing.add(node.name)
    assert exposing == {cls.__name__ for _, _, cls in INTERFACES}


def is_exposed(node: ast.stmt) -> bool:
    marks = getattr(node, "decorator_list", [])
    return any(getattr(mark.func if isinstance(mark, ast.Call) else mark, "id", "") == "exposed" for mark in marks)


class Hub:
    """Keeps the types of events."""

    def __init__(self) -> None:
        self.types: set[str] = set()

    def notify(self, topic, priority, event_type, payload, context=None, *, in_log=False) -> None:
        self.types.add(event_type)


def operator_actions() -> set[str]:
    """Return what `notify_operator` is called with: literals, or names that literals are assigned to in that module."""
    found = set()
    for path in PACKAGES[0].rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if ".notify_operator(" not in text:
            continue
        nodes = list(ast.walk(ast.parse(text)))
        assigned: dict[str, list[ast.expr]] = {}
        for node in nodes:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                assigned.setdefault(node.targets[0].id, []).append(node.value)
        for call in nodes:
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "notify_operator":
                sources = assigned.get(getattr(call.args[1], "id", ""), [call.args[1]])
                found |= {
                    each.value for source in sources for each in ast.walk(source) if isinstance(each, ast.Constant)
                }
    return {word for word in found if isinstance(word, str)}


def test_every_event_of_the_daemon_is_in_the_table_of_messaging() -> None:
    hub = Hub()
    notifier = StateNotifier(hub, "node1", FakeClock())
    for service in (ServiceState.UP, *ServiceState, ServiceState.UP):
        notifier.notify_service("lamp", service, "", 0.0)
    for driver in (DriverState.READY, *DriverState, DriverState.READY, DriverState.FAILED, DriverState.READY):
        notifier.notify_driver("lamp", DriverStatus(name="desk", driver="file", state=driver))
    for peer in ("back", "lost", "refused"):
        notifier.notify_peer("node2", peer, "", 0.0)
    for action in operator_actions():
        notifier.notify_operator("lamp", action, "root")
    table = (ROOT / "docs" / "messaging.md").read_text(encoding="utf-8").split("### Changes of state\n")[1]
    told = set(re.findall(r"`((?:service|driver|peer)\.\w+)`", table.split("\n## ")[0]))
    assert hub.types == told


def test_every_event_of_operations_and_of_the_bundled_plugins_is_documented() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert "operation.STATE" in page
    assert {state for state in OperationState if f"`{state}`" not in page} == set()
    for package in PACKAGES[1:]:
        readme = (package.parent / "README.md").read_text(encoding="utf-8")
        for path in package.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "notify" and node.args:
                    assert isinstance(node.args[0], ast.Constant), f"{path.name}: an event with a name made at run time"
                    assert f"`{node.args[0].value}`" in readme, f"{path.name}: {node.args[0].value}"
