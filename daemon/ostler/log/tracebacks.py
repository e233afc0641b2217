"""The traceback of any error as text, whatever the classes in it do, and not without end."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from types import TracebackType

from ostler.bounds import text_of

_CHAIN_LIMIT = 10
"""Errors that are shown of those that led to one another."""
_GROUP_LIMIT = 10
"""Errors that are shown of a group."""
_DEEPEST = 3
"""Groups within groups."""
_NOTES_LIMIT = 20
_FRAMES = 100
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
_WHOLE = 2**31
_FROM = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"


def traceback_text(error: BaseException, trace: TracebackType | None, shortened: Callable[[str], str]) -> str:
    """Return the traceback of an error as Python writes it; of a long chain the last errors alone.

    Args:
        error: The error.
        trace: Where it was raised, as a log record has it.
        shortened: Cuts the text of each error, so that no secret is cut in two.
    """
    return "\n".join(_Tracebacks(shortened).lines(error, trace, 0))


class _Tracebacks:
    """Writes errors, each of them not too long."""

    def __init__(self, shortened: Callable[[str], str]) -> None:
        self._shortened = shortened

    def lines(self, error: BaseException, trace: TracebackType | None, depth: int) -> Iterator[str]:
        chain = [(error, trace, "")]
        seen = {id(error)}
        while (found := _before(error)) is not None and id(found[0]) not in seen:
            error, how = found
            if len(chain) == _CHAIN_LIMIT:
                yield f"(there are more errors before these)\n\n{how}\n"
                break
            seen.add(id(error))
            chain.append((error, _TRACE(error), how))
        for found_error, raised_at, how in reversed(chain):
            yield from self._one(found_error, raised_at, depth)
            if how:
                yield f"\n{how}\n"

    def _one(self, error: BaseException, trace: TracebackType | None, depth: int) -> Iterator[str]:
        if trace is not None:
            yield "Traceback (most recent call last):"
            yield "".join(traceback.format_tb(trace, -_FRAMES)).rstrip("\n")
        text = self._text(error)
        yield f"{_full_name(error)}: {text}" if text else _full_name(error)
        yield from self._notes(error)
        if issubclass(type(error), BaseExceptionGroup) and depth < _DEEPEST:
            members = _GROUP(error)
            for number, member in enumerate(members[:_GROUP_LIMIT], 1):
                yield f"  --- {number} of {len(members)} errors of this group ---"
                for lines in self.lines(member, _TRACE(member), depth + 1):
                    yield "\n".join(f"  {line}" for line in lines.split("\n"))

    def _notes(self, error: BaseException) -> Iterator[str]:
        notes = _DICT(error).get("__notes__")
        if type(notes) is list:
            yield from (self._text(note) for note in notes[:_NOTES_LIMIT])

    def _text(self, value: object) -> str:
        return self._shortened(text_of(value, _WHOLE))


def _before(error: BaseException) -> tuple[BaseException, str] | None:
    """Return the error that led to this one, and in which way."""
    cause, context = _CAUSE(error), _CONTEXT(error)
    if cause is not None:
        return cause, _FROM
    return None if context is None or _SUPPRESSED(error) else (context, _DURING)


def _full_name(error: BaseException) -> str:
    try:
        module = text_of(_MODULE(type(error)))
    except AttributeError:
        module = "builtins"
    name = text_of(_NAME(type(error)))
    return name if module in ("builtins", "__main__") else f"{module}.{name}"
