"""Each table of Ostler and of its plugins says which of its columns may be left out on a narrow terminal."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest

import ostler.cli
from ostler.cli.table import Column, Table, fit_table

PLUGIN_MODULES = ["ostler_volume.commands", "ostler_scheduler.commands"]
FITTING_WIDTH = 80


def all_tables() -> dict[str, list[Any]]:
    """Return the columns of each table, by the name of the constant that has them."""
    names = [module.name for module in pkgutil.walk_packages(ostler.cli.__path__, "ostler.cli.")]
    return {
        f"{name}:{constant}": list(value)
        for name in [*names, *PLUGIN_MODULES]
        for constant, value in vars(importlib.import_module(name)).items()
        if constant.endswith("COLUMNS") and isinstance(value, list | tuple)
    }


TABLES = all_tables()


def test_the_tables_are_found() -> None:
    assert len(TABLES) >= 20


@pytest.mark.parametrize("name", TABLES)
def test_every_column_says_how_important_it_is(name: str) -> None:
    columns = TABLES[name]
    assert all(isinstance(column, Column) for column in columns)
    priorities = {column.priority for column in columns}
    assert 0 in priorities
    assert len(columns) <= 3 or len(priorities) > 1


@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_long_texts_fits_a_terminal_and_keeps_what_matters(name: str) -> None:
    columns = TABLES[name]
    row = ["9999.9" if column.right else "a long text that goes on and on and on" for column in columns]
    fitted = fit_table(Table(columns, [row]), FITTING_WIDTH)
    assert sum(fitted.widths) + 2 * (len(fitted.widths) - 1) <= FITTING_WIDTH
    assert {column.title for column in columns if not column.priority} <= {each.title for each in fitted.table.columns}
    assert min(fitted.widths) >= 4
