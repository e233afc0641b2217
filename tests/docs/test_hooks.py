"""docs/hooks.md is the docstrings of the hook specs, and cannot fall behind them."""

from __future__ import annotations

import inspect
import os
import textwrap
from pathlib import Path

from ostler import hookspecs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hooks.md"
HEAD = """# Hooks

What a plugin can declare. This page is generated from `ostler.hookspecs`; `OSTLER_REGENERATE=1 make test` updates it.

"""


def specs() -> list[tuple[str, object]]:
    return [(name, hook) for name, hook in vars(hookspecs).items() if hasattr(hook, "ostler_spec")]


def page() -> str:
    parts = [HEAD, textwrap.dedent(inspect.getdoc(hookspecs) or ""), "\n"]
    for name, hook in specs():
        signature = str(inspect.signature(hook)).replace("'", "")
        parts.append(f"\n## {name}\n\n```python\ndef {name}{signature}\n```\n\n{inspect.getdoc(hook)}\n")
    return "".join(parts)


def test_every_hook_is_documented() -> None:
    assert len(specs()) >= 7
    for name, hook in specs():
        assert "Called" in (inspect.getdoc(hook) or ""), f"{name} does not say when it is called and on which thread"


def test_the_page_is_what_the_declarations_say() -> None:
    if os.environ.get("OSTLER_REGENERATE"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "update it with OSTLER_REGENERATE=1"
