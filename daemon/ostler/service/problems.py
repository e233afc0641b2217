"""What a manager says is not well with its own objects: checked and bounded, because a plugin says it."""

from __future__ import annotations

from ostler.bounds import WHY_LIMIT, shown, text_of
from ostler.redaction import SECRETS, redact

_LINES_LIMIT = 20
_WHOLE = 2**31


def problem_lines(answer: object) -> list[str]:
    """Return the lines of an answer of `Manager.problems`, those that can be shown.

    Args:
        answer: What the manager returned: sentences, or None for nothing.

    Raises:
        TypeError: It is something else.
    """
    if answer is None:
        return []
    if type(answer) is not list and type(answer) is not tuple:
        raise TypeError(f"{shown(answer, 80)} is no list")
    lines = [_line(line) for line in answer[:_LINES_LIMIT]]
    if len(answer) > _LINES_LIMIT:
        lines.append(f"... ({len(answer) - _LINES_LIMIT} more)")
    return lines


def _line(line: object) -> str:
    text = SECRETS.cut(text_of(line, _WHOLE), WHY_LIMIT)
    return redact(text)
