"""Finding many spellings in a text at once, in a time that grows with the text and not with their number.

A text is cut into words of eight bytes. Wherever a spelling of fifteen bytes or more stands in it, one of the words is
among the first fifteen of its bytes: so each spelling is known by eight words, and a text without any of these words
has none of the spellings. Shorter ones are found by words of four bytes in the same way. All of that is one look at a
dictionary for each word of the text, in C. Only the spellings whose words are there are then looked for.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, KeysView, Mapping

from ostler.redaction.escapes import Span, decode_steps, has_escapes
from ostler.redaction.spellings import MASK, Value

_LONG_WORD = 15
_SHORT_WORD = 7
_MAX_SINGLES = 8
"""So many short spellings are found faster one by one."""


_Index = dict[int, "str | set[str]"]
"""The spellings of each word; mostly one, which needs no set then."""


class Matcher:
    """The spellings of secrets. One thread at a time changes it; any thread may look meanwhile."""

    def __init__(self) -> None:
        self._long: _Index = {}
        self._short: _Index = {}
        self._unindexed: dict[str, None] = {}
        self._short_spellings: dict[str, None] = {}
        self._use_count: Counter[str] = Counter()
        self._spellings_by_value: dict[Value, tuple[str, ...]] = {}
        self._singles: tuple[str, ...] = ()

    def add_all(self, spellings: Mapping[Value, tuple[str, ...]], *, indexed: bool = True) -> None:
        """Look for the spellings of values from now on, until these are removed.

        Args:
            spellings: The values that are new, and the spellings of each.
            indexed: Whether they are worth an index: without one, adding takes no time, and each text takes longer.
        """
        for value, spelt in spellings.items():
            self._spellings_by_value[value] = spelt
            for form in spelt:
                self._use_count[form] += 1
                if self._use_count[form] == 1:
                    self._add_to_index(form, indexed)
        self._set_singles()

    def remove(self, values: Iterable[Value]) -> None:
        """Forget values that were added, as far as no other has the same spellings."""
        for value in values:
            for form in self._spellings_by_value.pop(value, ()):
                self._remove_from_index(form)
        self._set_singles()

    def values(self) -> KeysView[Value]:
        """Return the values that were added."""
        return self._spellings_by_value.keys()

    def find_spans(self, text: str) -> list[Span]:
        """Return where spellings stand in a text, in their order, those that overlap or touch as one."""
        if not self._use_count:
            return []
        found = self._find_all(text)
        if has_escapes(text):
            for shorter, steps in decode_steps(text):
                for span in self._find_all(shorter):
                    for step in reversed(steps):
                        span = step.original_span(span)  # noqa: PLW2901 - through all of them
                    found.append(span)
        return merge_spans(found) if found else found

    def _find_all(self, text: str) -> list[Span]:
        forms = self._candidates(text)
        return [span for form in forms for span in _occurrences(text, form)] if forms else []

    def _candidates(self, text: str) -> set[str]:
        """Return the spellings that may stand in a text."""
        found = {form for form in self._singles if form in text}
        data = text.encode("utf-8", "surrogatepass")
        if self._long:
            _look_up(self._long, array("Q", data[: len(data) & -8]), found)
        if len(self._short_spellings) > _MAX_SINGLES:
            _look_up(self._short, array("I", data[: len(data) & -4]), found)
        return found

    def _add_to_index(self, form: str, indexed: bool) -> None:
        data = form.encode("utf-8", "surrogatepass")
        if len(data) < _SHORT_WORD or not indexed:
            self._unindexed[form] = None
            return
        if len(data) < _LONG_WORD:
            self._short_spellings[form] = None
        index = self._long if len(data) >= _LONG_WORD else self._short
        for word in _word_hashes(data):
            there = index.setdefault(word, form)
            if isinstance(there, set):
                there.add(form)
            elif there is not form:
                index[word] = {there, form}

    def _remove_from_index(self, form: str) -> None:
        self._use_count[form] -= 1
        if self._use_count[form]:
            return
        del self._use_count[form]
        if form in self._unindexed:
            del self._unindexed[form]
            return
        self._short_spellings.pop(form, None)
        data = form.encode("utf-8", "surrogatepass")
        index = self._long if len(data) >= _LONG_WORD else self._short
        for word in _word_hashes(data):
            there = index.get(word)
            if isinstance(there, set):
                there.discard(form)
            if not there or there == form:
                index.pop(word, None)

    def _set_singles(self) -> None:
        few = self._short_spellings if len(self._short_spellings) <= _MAX_SINGLES else ()
        self._singles = (*self._unindexed, *few)


def _word_hashes(data: bytes) -> set[int]:
    if len(data) >= _LONG_WORD:
        return set(array("Q", b"".join([data[at : at + 8] for at in range(8)])))
    return set(array("I", b"".join([data[at : at + 4] for at in range(4)])))


def _look_up(index: _Index, words: array[int], into: set[str]) -> None:
    if not index.keys().isdisjoint(words):
        for word in index.keys() & words:
            there = index.get(word, ())
            into.update((there,) if isinstance(there, str) else there)


def _occurrences(text: str, form: str) -> Iterator[Span]:
    """Yield where a form stands in a text; what stands there overlapping itself is one place."""
    size = len(form)
    start = text.find(form)
    while start >= 0:
        end = start + size
        # The last one that begins inside of what was found: so a row of equal characters takes no time for each.
        while (further := text.rfind(form, end - size + 1, end + size - 1)) >= 0:
            end = further + size
        yield start, end
        start = text.find(form, end)


def merge_spans(spans: list[Span]) -> list[Span]:
    """Return spans in their order, those that overlap or touch as one."""
    spans.sort()
    found: list[Span] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def mask_spans(text: str, spans: Iterable[Span]) -> str:
    """Return a text with the mask in place of each span."""
    parts: list[str] = []
    at = 0
    for start, end in spans:
        parts += (text[at:start], MASK)
        at = end
    return "".join([*parts, text[at:]])


__all__ = ["Matcher", "mask_spans", "merge_spans"]
