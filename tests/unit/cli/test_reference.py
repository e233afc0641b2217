from __future__ import annotations

from pathlib import Path

from ostler import errors
from ostler.cli import json_reference
from ostler.cli.command_tree import COMMANDS
from ostler.cli.reference import EXIT_CODES, render

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_page_is_what_the_verbs_declare() -> None:
    assert PAGE.read_text() == render(), "run: python -m ostler.cli.reference > docs/cli.md"


def test_the_page_of_documents_is_what_the_verbs_declare() -> None:
    page = PAGE.with_name("json.md").read_text()
    assert page == json_reference.render(), "run: python -m ostler.cli.json_reference > docs/json.md"


def test_every_verb_and_every_exit_code_is_on_the_page() -> None:
    page = render()
    for name in COMMANDS:
        assert f"### ostler {name}\n" in page
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OstlerError)]
    for kind in kinds:
        assert kind.exit_code in EXIT_CODES
