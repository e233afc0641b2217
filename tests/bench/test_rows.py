from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def rows():
    # The bench is a script with modules beside it, and no package.
    spec = importlib.util.spec_from_file_location("bench_rows", Path(__file__).with_name("rows.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_ratio_is_judged_by_its_sense(rows):
    fast = rows.FigureRow(name="call", value=30, unit="us", baseline=20, limit=1.25, relative=True)
    assert (fast.ratio, fast.budget, fast.ok, fast.verdict) == (1.5, "<= 1.25 x", False, "OVER BUDGET")
    rate = rows.FigureRow(name="rate", value=30, unit="/s", baseline=60, limit=0.4, sense=rows.AT_LEAST, relative=True)
    assert (rate.budget, rate.ok) == (">= 0.4 x", True)


def test_a_plain_figure_is_judged_by_itself(rows):
    memory = rows.FigureRow(name="memory", value=44.9, unit="MB", baseline=30, limit=45)
    assert (memory.budget, memory.ok) == ("<= 45 MB", True)


def test_a_budget_that_is_due_later_is_no_failure(rows):
    later = rows.FigureRow(name="call", value=30, unit="us", baseline=20, limit=1.25, relative=True, binding=False)
    assert (later.ok, later.verdict) == (None, "due later")


def test_what_could_not_be_measured_is_over_its_budget(rows):
    missing = rows.FigureRow(name="call", value=None, unit="")
    assert (missing.ok, missing.verdict) == (False, "not measured")


def test_rows_are_written_as_a_list_of_objects_with_seven_keys(rows, tmp_path):
    rows.write(
        [rows.FigureRow(name="a", value=1 / 3, unit="s", baseline=2.0, limit=1, relative=True)], tmp_path / "b" / "c"
    )
    assert json.loads((tmp_path / "b" / "c").read_text()) == [
        {"name": "a", "value": 0.3333, "unit": "s", "yardstick": 2.0, "ratio": 0.1667, "budget": "<= 1 x", "ok": True}
    ]


def test_the_table_is_aligned(rows):
    lines = rows.table(
        [rows.FigureRow(name="a", value=12345, unit="s"), rows.FigureRow(name="longer", value=0.5, unit="MB", limit=1)]
    ).splitlines()
    assert [line.index("UNIT" if number == 0 else ("s" if number == 1 else "MB")) for number, line in enumerate(lines)]
    assert lines[1].split() == ["a", "12,345", "s", "-", "-", "-", "ok"]
    assert lines[2].split() == ["longer", "0.5", "MB", "-", "-", "<=", "1", "MB", "ok"]


def test_a_percentile_is_a_value_that_was_measured(rows):
    values = [float(number) for number in range(100, 0, -1)]
    assert (rows.percentile(values, 0.5), rows.percentile(values, 0.99)) == (51.0, 100.0)
    assert rows.percentile([7.0], 0.99) == 7.0
