"""How long a text may be that somebody else is shown, and the one place that cuts what is longer.

What people and programs give as input is refused when it is too long (`errors.check_length`). What an
error, a state or a log line says is cut, with the number of characters that are missing.
"""

from __future__ import annotations

from typing import TypeAlias

DetailValue: TypeAlias = "bool | int | float | str | list[DetailValue] | dict[str, DetailValue] | None"

NAME_LIMIT = 255
"""Characters of a name: a topic, a method, a host, an event, a request id."""
TEXT_LIMIT = 1000
"""Characters of a reason that somebody gives, or of a report of progress."""
WHY_LIMIT = 2000
"""Characters of what a state or a line of the status says of an error."""
MESSAGE_LIMIT = 16_000
"""Characters of the sentence of an error, and of a line of the log."""
DETAILS_LIMIT = 16_000
"""Characters of all facts of an error together, their names included."""
DETAIL_LIMIT = 2000
"""Characters of one text among them."""
MAX_DETAIL_COUNT = 500
"""Values of all facts of an error, at whatever depth."""
MAX_DETAIL_DEPTH = 8
"""How many lists and dictionaries of a fact may lie in each other."""
_LARGEST_INT = 2**63
_NAME_OF_TYPE = type.__dict__["__name__"].__get__


def truncate(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return a text, of a longer one the beginning and how many characters are missing.

    Args:
        text: The text.
        limit: The characters of it that are shown at most. A text that is looked through for secrets later is cut by
            `ostler.redaction.SECRETS.cut`, or the first half of one would be shown.
    """
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... ({len(text) - limit} more characters)"


def safe_str(value: object, limit: int = DETAIL_LIMIT) -> str:
    """Return anything as a text that can go over the wire and is not too long, whatever its `__str__` does."""
    # By the type and not by `isinstance`, which asks `__class__`: of a plugin's value that may raise.
    kind = type(value)
    try:
        if issubclass(kind, bytes | bytearray | memoryview):
            return f"({len(value)} bytes)"  # type: ignore[arg-type]
        text = str.__str__(str(value))  # a plain one, whatever a class derived from `str` makes of its methods
    except BaseException:  # noqa: BLE001 - of a plugin it can raise anything, SystemExit as well
        return f"<{type_name(value)}>"
    return escape_surrogates(truncate(text, limit))


def safe_repr(value: object, limit: int = DETAIL_LIMIT) -> str:
    """Return anything as Python writes it, not too long, whatever its `__repr__` does."""
    try:
        return safe_str(repr(value), limit)
    except BaseException:  # noqa: BLE001 - of a plugin it can raise anything, SystemExit as well
        return f"<{type_name(value)}>"


def type_name(value: object) -> str:
    """Return the name of a value's class, whatever its metaclass and its `__class__` do."""
    return escape_surrogates(truncate(_NAME_OF_TYPE(type(value)), NAME_LIMIT))


def mask_numbers(text: str) -> str:
    """Return a text without its numbers and addresses: the same for errors that differ in nothing else."""
    import re  # only where something has failed

    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", text)


def escape_surrogates(text: str) -> str:
    """Return a text with what UTF-8 cannot say written as escapes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def bound_details(details: object) -> dict[str, DetailValue]:
    """Return the facts of an error as they may be shown: bounded in number, length and depth.

    What cannot be encoded is text; of what has no text either, the name of its type stands there.

    Args:
        details: A dictionary; whatever a plugin may have put in its place has no facts.
    """
    if not isinstance(details, dict):
        return {}
    return _DetailBudget().mapping(details, MAX_DETAIL_DEPTH)


class _DetailBudget:
    """What is left of the limits while the facts of one error are gone through."""

    def __init__(self) -> None:
        self.characters_left = DETAILS_LIMIT
        self.values_left = MAX_DETAIL_COUNT

    def value(self, value: object, deepest: int) -> DetailValue:
        self.values_left -= 1
        try:
            return self._value(value, deepest)
        except BaseException:  # noqa: BLE001 - a plugin's class: its length, its items or its `__class__` may raise
            return f"<{type_name(value)}>"

    def _value(self, value: object, deepest: int) -> DetailValue:
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return int(value) if -_LARGEST_INT <= value < 2 * _LARGEST_INT else self.text(_bounded_int(value))
        if isinstance(value, dict | list | tuple | set | frozenset):
            if deepest == 0:
                return "…"
            return self.mapping(value, deepest - 1) if isinstance(value, dict) else self.items(value, deepest - 1)
        return self.text(value)

    def mapping(self, values: dict[object, object], deepest: int) -> dict[str, DetailValue]:
        found: dict[str, DetailValue] = {}
        for name, value in values.items():
            if self.values_left <= 0 or self.characters_left <= 0:
                found["…"] = f"({len(values) - len(found)} more)"
                break
            found[self.text(name, NAME_LIMIT)] = self.value(value, deepest)
        return found

    def items(
        self, values: list[object] | tuple[object, ...] | set[object] | frozenset[object], deepest: int
    ) -> DetailValue:
        found: list[DetailValue] = []
        for value in values:
            if self.values_left <= 0 or self.characters_left <= 0:
                found.append(f"… ({len(values) - len(found)} more)")
                break
            found.append(self.value(value, deepest))
        return found

    def text(self, value: object, most: int = DETAIL_LIMIT) -> str:
        text = safe_str(value, min(most, max(self.characters_left, 0)))
        self.characters_left -= len(text)
        return text


def _bounded_int(value: int) -> str:
    # To write a huge number in digits takes time that grows with its square, and Python refuses to.
    return str(value) if value.bit_length() < 1000 else f"(a number of {value.bit_length()} bits)"
