from __future__ import annotations

import subprocess
import sys

from ostler_http import Filter, plugin
from ostler_http.application import APP_KIND, FILTER_KIND, PAGE_KIND
from ostler_http.manager import HttpManager


def test_it_brings_its_manager_and_applications_by_import_path():
    assert plugin.ostler_managers() == {"http": "ostler_http.manager:HttpManager"}
    assert all(isinstance(path, str) for path in plugin.ostler_extensions().values())
    assert {kind for kind, _ in plugin.ostler_extensions()} <= {APP_KIND, FILTER_KIND}


def test_the_manager_takes_applications_filters_and_pages():
    assert dict(HttpManager.extension_kinds) == {APP_KIND: object, FILTER_KIND: Filter, PAGE_KIND: object}


def test_discovering_the_plugin_imports_no_manager_server_or_framework():
    code = (
        "import sys, ostler_http.plugin as p; p.ostler_managers(); p.ostler_extensions();"
        "print([m for m in ('ostler_http.manager', 'pydantic', 'typer', 'starlette', 'ssl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
