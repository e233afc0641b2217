"""Which types commands show with `-o json`: the source of their schemas; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
SHOWN_ATTRIBUTE = "ostler_shown"
"""Set on the function of each command that says what it shows."""


class ShownTypes(NamedTuple):
    """What a command shows for programs.

    Attributes:
        kinds: The types, of which it shows one, depending on its options. A text is `MODULE:NAME`, imported for the
            schema only.
        many: Whether it shows a list of them.
        lines: Whether it shows one after another, a line each.
    """

    kinds: tuple[Any, ...]
    many: bool = False
    lines: bool = False


def shows(*kinds: Any, many: bool = False, lines: bool = False) -> Callable[[F], F]:
    """Declare what a command shows with `-o json`; `ostler help --schema COMMAND` prints its JSON Schema.

        @app.command("list")
        @kit.view
        @kit.shows(Lamp, many=True)
        def list_lamps() -> None: ...

    Args:
        kinds: Types msgspec can encode, of which one is shown; `MODULE:NAME` for what is expensive to import.
        many: Whether it is a list of them, as of `show_table`.
        lines: Whether they are shown one after another, as of `emit_item`.
    """

    def mark(command: F) -> F:
        setattr(command, SHOWN_ATTRIBUTE, ShownTypes(kinds, many, lines))
        return command

    return mark


def shown_types(command: Any) -> ShownTypes | None:
    """Return what a command shows; None if it does not say.

    Args:
        command: A command of typer.
    """
    found = getattr(getattr(command, "callback", None), SHOWN_ATTRIBUTE, None)
    return found if isinstance(found, ShownTypes) else None
