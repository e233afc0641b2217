from __future__ import annotations

import subprocess
import sys

from ostler_scheduler import Filter, Weigher, plugin
from ostler_scheduler.manager import FILTER_KIND, WEIGHER_KIND, SchedulerManager


def test_it_brings_its_manager_filters_and_weighers_by_import_path():
    assert plugin.ostler_managers() == {"scheduler": "ostler_scheduler.manager:SchedulerManager"}
    assert all(isinstance(path, str) for path in plugin.ostler_extensions().values())


def test_each_part_is_of_the_kind_the_manager_asks_for():
    bases = dict(SchedulerManager.extension_kinds)
    assert bases == {FILTER_KIND: Filter, WEIGHER_KIND: Weigher}
    for (kind, _), path in plugin.ostler_extensions().items():
        module, _, name = path.partition(":")
        assert issubclass(getattr(sys.modules[module], name), bases[kind])


def test_the_defaults_name_what_is_brought():
    brought = plugin.ostler_extensions()
    options = SchedulerManager.Options(manager="scheduler")
    assert {(FILTER_KIND, name) for name in options.filters} <= set(brought)
    assert {(WEIGHER_KIND, name) for name in options.weighers} <= set(brought)


def test_discovering_the_plugin_imports_neither_its_manager_nor_pydantic():
    code = (
        "import sys, ostler_scheduler.plugin as p; p.ostler_managers(); p.ostler_extensions();"
        "print([m for m in ('ostler_scheduler.manager', 'pydantic', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
