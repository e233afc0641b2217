"""The traceback of any error as text, whatever the classes in it do, and not without end."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from types import TracebackType

from ostler.bounds import safe_str

_MAX_CHAIN = 10
"""Errors that are shown of those that led to one another."""
_MAX_GROUP = 10
"""Errors that are shown of a group."""
_MAX_GROUP_DEPTH = 3
"""Groups within groups."""
_MAX_NOTES = 20
_MAX_FRAMES = 100
"""Calls that are shown of a deep stack, the innermost."""

# The slots of the base class, not the attributes: those of a plugin's class may raise, or give a new error each time.
_CAUSE = BaseException.__dict__["__cause__"].__get__
_CONTEXT = BaseException.__dict__["__context__"].__get__
_SUPPRESSED = BaseException.__dict__["__suppress_context__"].__get__
_TRACE = BaseException.__dict__["__traceback__"].__get__
_DICT = BaseException.__dict__["__dict__"].__get__
_GROUP = BaseExceptionGroup.__dict__["exceptions"].__get__
_MODULE = type.__dict__["__module__"].__get__
_NAME = type.__dict__["__qualname__"].__get__
_NO_LIMIT = 2**31
_FROM = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"


def format_traceback(error: BaseException, trace: TracebackType | None, shortened: Callable[[str], str]) -> str:
    """Return the traceback of an error as Python writes it; of a long chain the last errors alone.

    Args:
        error: The error.
        trace: Where it was raised, as a log record has it.
        shortened: Cuts the text of each error, so that no secret is cut in two.
    """
    return "\n".join(_TracebackFormatter(shortened).lines(error, trace, 0))


class _TracebackFormatter:
    """Writes errors, each of them not too long."""

    def __init__(self, shortened: Callable[[str], str]) -> None:
        self._shortened = shortened

    def lines(self, error: BaseException, trace: TracebackType | None, depth: int) -> Iterator[str]:
        chain = [(error, trace, "")]
        seen = {id(error)}
        while (found := _leading_error(error)) is not None and id(found[0]) not in seen:
            error, how = found
            if len(chain) == _MAX_CHAIN:
                yield f"(there are more errors before these)\n\n{how}\n"
                break
            seen.add(id(error))
            chain.append((error, _TRACE(error), how))
        for found_error, raised_at, how in reversed(chain):
            yield from self._format_one(found_error, raised_at, depth)
            if how:
                yield f"\n{how}\n"

    def _format_one(self, error: BaseException, trace: TracebackType | None, depth: int) -> Iterator[str]:
        if trace is not None:
            yield "Traceback (most recent call last):"
            yield "".join(traceback.format_tb(trace, -_MAX_FRAMES)).rstrip("\n")
        text = self._safe_text(error)
        yield f"{_full_name(error)}: {text}" if text else _full_name(error)
        yield from self._format_notes(error)
        if issubclass(type(error), BaseExceptionGroup) and depth < _MAX_GROUP_DEPTH:
            members = _GROUP(error)
            for number, member in enumerate(members[:_MAX_GROUP], 1):
                yield f"  --- {number} of {len(members)} errors of this group ---"
                for lines in self.lines(member, _TRACE(member), depth + 1):
                    yield "\n".join(f"  {line}" for line in lines.split("\n"))

    def _format_notes(self, error: BaseException) -> Iterator[str]:
        notes = _DICT(error).get("__notes__")
        if type(notes) is list:
            yield from (self._safe_text(note) for note in notes[:_MAX_NOTES])

    def _safe_text(self, value: object) -> str:
        return self._shortened(safe_str(value, _NO_LIMIT))


def _leading_error(error: BaseException) -> tuple[BaseException, str] | None:
    """Return the error that led to this one, and in which way."""
    cause, context = _CAUSE(error), _CONTEXT(error)
    if cause is not None:
        return cause, _FROM
    return None if context is None or _SUPPRESSED(error) else (context, _DURING)


def _full_name(error: BaseException) -> str:
    try:
        module = safe_str(_MODULE(type(error)))
    except AttributeError:
        module = "builtins"
    name = safe_str(_NAME(type(error)))
    return name if module in ("builtins", "__main__") else f"{module}.{name}"
