"""Problems of a configuration as lines for people; imports no model, so that any command can show them."""

from __future__ import annotations

from ostler.errors import Problem
from ostler.printable import printable, text_width


def problem_lines(problem: Problem) -> list[str]:
    """Return the sentence, and if the line of the file is known, that line and a mark under the value."""
    if problem.source is None:
        return [str(problem)]
    text, column, length = problem.source
    first, marked, rest = text[: column - 1], text[column - 1 :][:length], text[column - 1 + length :]
    first, marked, rest = (printable(part.replace("\t", " ")) for part in (first, marked, rest))
    mark = " " * text_width(first) + "^" * max(1, text_width(marked))
    return [str(problem), f"    {first}{marked}{rest}", f"    {mark}"]
