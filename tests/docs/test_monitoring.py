"""The page on monitoring is typed, and dashboard and alerts name metrics that exist and queries that parse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.daemon.control.metrics.catalogue import CATALOGUE
from ostler.types import DriverState, ServiceState

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from alert_cases import CASES, rule_tests  # noqa: E402
from executable_pages import Terminal, type_page  # noqa: E402

MONITORING = ROOT / "docs" / "monitoring"
ALERTS = MONITORING / "alerts.yml"
NAME = re.compile(r"\b((?:ostler|process)_[a-z_]+)\b")
LABELS = re.compile(r"\b((?:ostler|process)_[a-z_]+)\{([^}]*)\}")
OF_PROMETHEUS = {"job", "instance", "le"}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed; Debian's package prometheus has it"
)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    return found


def dashboard_queries() -> Iterator[str]:
    """Return all queries of the dashboard, as Prometheus gets them."""
    found = dashboard()
    queries = [target["expr"] for panel in found["panels"] for target in panel.get("targets", ())]
    queries += [each["expr"] for each in found["annotations"]["list"]]
    for query in queries:
        yield query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$service", ".*")


def alert_queries() -> Iterator[str]:
    text = ALERTS.read_text(encoding="utf-8")
    for rule in text.split("- alert: ")[1:]:
        yield rule.partition("expr:")[2].partition("labels: {severity")[0]


def metric_of(name: str) -> str:
    """Return the metric that a name of a sample belongs to."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in CATALOGUE and CATALOGUE[base].kind == "histogram" else name


@pytest.mark.timeout(120)
def test_the_section_to_try_is_typed_word_by_word(terminal: Terminal) -> None:
    assert type_page(ROOT / "docs" / "monitoring.md", terminal, word="run") > 10


@pytest.mark.parametrize("queries", [dashboard_queries, alert_queries])
def test_each_metric_of_dashboard_and_alerts_exists_with_its_labels(queries) -> None:
    found = list(queries())
    assert len(found) > 25
    for query in found:
        names = set(NAME.findall(query))
        assert {metric_of(name) for name in names} <= set(CATALOGUE), query
        for name, selectors in LABELS.findall(query):
            known = {*CATALOGUE[metric_of(name)].labels, *OF_PROMETHEUS}
            assert set(re.findall(r"(\w+)\s*[=!]", selectors)) <= known, query


def test_each_metric_that_the_page_names_exists() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    named = set(NAME.findall(text))
    assert len(named) > 20
    assert named <= set(CATALOGUE)


def test_states_in_queries_are_states_that_there_are() -> None:
    states = {str(state) for state in (*ServiceState, *DriverState, "waiting", "running", "succeeded", "cancelled")}
    for query in (*dashboard_queries(), *alert_queries()):
        for words in re.findall(r'state[=!]~?"([a-z|]+)"', query):
            assert set(words.split("|")) <= states, query


def test_what_matters_most_is_watched_and_shown() -> None:
    watched, shown = "".join(alert_queries()), "".join(dashboard_queries())
    for name in ("service_state", "driver_state", "store_available", "requests_failed", "loop_blocked", "peer_up"):
        assert f"ostler_{name}" in watched, name
        assert f"ostler_{name}" in shown, name


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 25
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]


def test_each_alert_has_a_severity_and_says_what_to_look_at() -> None:
    rules = ALERTS.read_text(encoding="utf-8").split("- alert: ")[1:]
    assert len({rule.partition("\n")[0] for rule in rules}) == len(rules) > 20
    for rule in rules:
        assert re.search(r"labels: \{severity: (critical|warning|info)\}", rule), rule
        assert "summary: " in rule
        assert "description: " in rule


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_alerts_and_they_see_what_they_should() -> None:
    assert PROMTOOL is not None
    for words in (["check", "rules", str(ALERTS)], ["test", "rules", str(ROOT / "tests/docs/monitoring_rules.yml")]):
        done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_that_it_sees_and_one_that_it_does_not() -> None:
    assert set(CASES) == set(re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8")))


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_each_alert_fires_where_it_should_and_nowhere_else(alert: str, tmp_path: Path) -> None:
    assert PROMTOOL is not None
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps(rule_tests(alert, str(ALERTS))), encoding="utf-8")
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_parses_each_query_of_the_dashboard(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    file = tmp_path / "queries.yml"  # what is JSON is YAML as well
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
