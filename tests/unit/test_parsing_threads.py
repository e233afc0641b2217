from __future__ import annotations

import ast
import gc
from typing import Any

SOURCE = "\n".join(f"def f{number}(a):\n    return a + {number}" for number in range(300))


def test_what_is_parsed_while_garbage_is_collected_disturbs_no_other_parsing() -> None:
    """CPython before 3.11.8 has one count for both; `tests/conftest.py` has the run go on."""
    nested: list[ast.AST] = []

    def parse_once(phase: str, info: dict[str, Any]) -> None:
        if not nested:
            nested.append(ast.Pass())  # collecting may begin again in here
            nested.append(ast.parse("a + b"))

    threshold, enabled = gc.get_threshold(), gc.isenabled()
    gc.enable()
    gc.set_threshold(50)
    gc.callbacks.append(parse_once)
    try:
        assert len(ast.parse(SOURCE).body) == 300
    finally:
        gc.callbacks.remove(parse_once)
        gc.set_threshold(*threshold)
        if not enabled:
            gc.disable()
    assert len(nested) == 2
