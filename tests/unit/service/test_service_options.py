"""Every option that is declared has an effect: somebody outside of `config` reads it."""

import ast
from pathlib import Path

import pytest

import ostler
from ostler.config.core_sections import CORE_SECTIONS, NotificationsSection
from ostler.driver import DriverOptions
from ostler.manager import ManagerOptions

PACKAGE = Path(ostler.__file__).parent
# Read by the table's name, before there are options: which class to load.
# And by priority: who hears of which notifications. And the budget of a method, by its mark.
BY_NAME = {"manager", "driver", "drivers", "capability_timeout", *NotificationsSection.model_fields}


@pytest.fixture(scope="module")
def read():
    """The names of all attributes that are read outside of `config`."""
    trees = (ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py") if PACKAGE / "config" not in path.parents)
    return {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("model", [*CORE_SECTIONS.values(), ManagerOptions, DriverOptions], ids=lambda m: m.__name__)
def test_every_option_is_read_by_somebody(model, read):
    assert [name for name in model.model_fields if name not in read | BY_NAME] == []
