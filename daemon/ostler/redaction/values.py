"""Secret values, and the one function that takes them out of a text.

What the configuration names as a secret is known here from the moment it is read, and secret arguments of requests
while these are under way. Every text that leaves (logs of any logger, errors, states and why, events, progress, audit,
what is written to the database or sent to other hosts) goes through here where it becomes a text that is kept or sent.
This is one object for the process: a line of a library's logger, on a thread of its own, belongs to no daemon.

Looked for are a value and its usual spellings, also one in another: URL-encoded, base64 (also inside of a longer text),
hexadecimal, escaped as in JSON, HTML, Python and a shell. What was changed otherwise, or is split, cannot be found.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any

from ostler.redaction.escapes import Span
from ostler.redaction.forms import SHORTEST, Extent, Value, forms_of
from ostler.redaction.matcher import Matcher, merged, replaced

_SHORTEST_IN_FLIGHT = 8
"""Characters of the shortest argument that is looked for in texts that belong to no request: a caller must not blank
out the words of others."""
_KEEP_SUPERSEDED = 24 * 3600.0
"""Seconds for which a value is looked for after another one took its place: an old one may still be in a queue, or in a
driver that was too busy to be built anew."""
_SUPERSEDED_MOST = 256
_KEEP_ARGUMENT = 60.0
"""Seconds for which an argument is looked for after its request has ended: threads that it started may go on."""
_ARGUMENTS_MOST = 2000
_ENDED_MOST = 256
_SPELT_MOST = 256
"""Of more values at once only themselves are looked for: the spellings of each of thirty thousand would hold up the
loop for seconds."""
_NESTED_MOST = 32
"""Of more values, or more at once, one spelling in another is not looked for: each value takes 150 KB with them."""
_SMALL = 10 ** (SHORTEST - 2)
"""A number below it is too short to be a secret that is looked for, with its sign as well."""
_NESTED_MOST_OF_REQUEST = 4
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{16}|(?:[0-9A-Fa-f]{2}[: -]){8}")
"""What a text that has one spelling in another has as well; an ordinary one has it seldom."""
_LONG_TEXT = 4096
_LONG_ARGUMENT = 256 * 1024
"""Characters of the secret arguments of one request above which only they themselves are looked for, and only while it
runs: they could be as large as a message."""
_CUT_BEYOND = 64 * 1024
"""Characters beyond the place of a cut that are looked through at most, so that no secret is cut in two."""
_EXPANSION = 6
"""Characters that one character of a secret becomes in its usual spellings."""


TOO_MANY: Value = "(not shown: the request has more secret values than are looked for in a text)"
"""Stands, alone or as the last, for more secret values than `MOST_OF_REQUEST`: to look for tens of thousands in each
text would hold up the loop. What belongs to their request is not shown at all then."""
MOST_OF_REQUEST = 2000


class SecretValues:
    """The secret values of a process. Any thread.

    Values of the configuration come by generations: each load of it begins one, and when that has been put into force,
    what it did not read again is superseded, and forgotten a day later. The spellings of a value are made when a text
    is looked through for the first time after it became known.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._values: dict[str, int] = {}
        self._superseded: dict[str, float] = {}
        self._matcher = Matcher()
        self._changed = False
        self._longest = 0
        self._arguments: dict[Value, int] = {}
        self._ended: dict[Value, float] = {}
        self._argument_matcher = Matcher()
        self._arguments_changed = False

    @property
    def known(self) -> bool:
        """Whether the configuration has secret values."""
        return bool(self._values)

    def begin(self) -> None:
        """Begin to read the configuration anew."""
        self._generation += 1

    def add(self, value: str) -> None:
        """Take note of a secret value that was read."""
        with self._lock:
            if value not in self._values:
                self._changed = True
                self._longest = max(self._longest, len(value))
            self._values[value] = self._generation
            self._superseded.pop(value, None)

    def commit(self) -> None:
        """Take note that what was read last is in force: what was not read again may be forgotten after a while."""
        now = monotonic()
        with self._lock:
            for value, generation in self._values.items():
                if generation < self._generation:
                    self._superseded.setdefault(value, now)
            old = [value for value, at in self._superseded.items() if now - at > _KEEP_SUPERSEDED]
            old += list(self._superseded)[: max(0, len(self._superseded) - len(old) - _SUPERSEDED_MOST)]
            for value in old:
                self._superseded.pop(value, None)
                self._values.pop(value, None)
                self._changed = True

    def enter(self, values: Sequence[Value]) -> bool:
        """Look for secret arguments of a request until `leave`; return False for too many, which are not."""
        if _too_many(values) or len(values) > _ARGUMENTS_MOST:
            return False
        with self._lock:
            for value in values:
                self._arguments[value] = self._arguments.get(value, 0) + 1
            self._arguments_changed = True
        return True

    def leave(self, values: Iterable[Value]) -> None:
        """Take note that a request with secret arguments has ended."""
        now = monotonic()
        with self._lock:
            for value in values:
                left = self._arguments.get(value, 0) - 1
                if left > 0:
                    self._arguments[value] = left
                elif self._arguments.pop(value, None) is not None and len(value) <= _LONG_ARGUMENT:
                    self._ended.pop(value, None)
                    self._ended[value] = now + _KEEP_ARGUMENT
            while self._ended and (len(self._ended) > _ENDED_MOST or next(iter(self._ended.values())) < now):
                del self._ended[next(iter(self._ended))]
            self._arguments_changed = True

    def redact(self, text: str, *, arguments: bool = True, also: Sequence[Value] = ()) -> str:
        """Return a text without the values and their spellings.

        Args:
            text: What is to be kept, sent or logged.
            arguments: Whether arguments of all requests under way are looked for too; not in a text that belongs to a
                request, whose own are known.
            also: Further values that are looked for: those of the request that the text belongs to.
        """
        if _too_many(also):
            return str(TOO_MANY) if text else text
        spans = self._spans(text, arguments, also)
        return replaced(text, spans) if spans else text

    def cut(self, text: str, most: int, *, also: Sequence[Value] = ()) -> str:
        """Return a text, of a longer one the beginning and how many characters are missing; no secret is cut in two.

        It is not redacted by this: a text that is cut is looked through twice, once for what stands at the cut.
        """
        if len(text) <= most:
            return text
        if _too_many(also):
            return str(TOO_MANY)
        longest = max(map(len, (*also, *tuple(self._arguments), *tuple(self._ended))), default=0)
        beyond = min(_CUT_BEYOND, _EXPANSION * max(self._longest, longest))
        start = max(0, most - beyond)
        around = self._spans(text[start : most + beyond], arguments=True, also=also) if beyond else ()
        end = next((start + begin for begin, end in around if start + begin < most < start + end), most)
        return f"{text[:end]}... ({len(text) - end} more characters)"

    def redact_deep(self, value: Any, *, also: Sequence[Value] = ()) -> Any:
        """Return a value of plain types, in which no text or bytes at any depth hold one of these; keys included."""
        if not (self._values or also):
            return value
        return _deep(value, lambda text: self.redact(text, arguments=False, also=also))

    def in_bytes(self, data: bytes, *, also: Sequence[Value] = ()) -> bool:
        """Return whether one of the values stands in encoded data; costs next to nothing when there are none."""
        return _too_many(also) or bool(
            (self._values or also) and self._spans(data.decode("latin-1"), arguments=False, also=also)
        )

    def _spans(self, text: str, arguments: bool, also: Sequence[Value]) -> list[Span]:
        found: list[Span] = []
        if self._values or self._changed:
            if self._changed:
                self._update()
            found = self._matcher.spans(text)
        if also:
            found += _matcher_for(text, also).spans(text)
        if arguments and (self._arguments or self._ended):
            if self._arguments_changed:
                self._update_arguments()
            found += self._argument_matcher.spans(text)
        return merged(found) if found else found

    def _update(self) -> None:
        with self._lock:
            if not self._changed:  # another thread was faster
                return
            self._longest = max(map(len, self._values), default=0)
            extent = Extent.NESTED if len(self._values) <= _NESTED_MOST else Extent.USUAL
            _set(self._matcher, self._values, extent)
            self._changed = False  # at last: nobody looks a text through before all is there

    def _update_arguments(self) -> None:
        with self._lock:
            if not self._arguments_changed:
                return
            values = [value for value in {**self._ended, **self._arguments} if len(value) >= _SHORTEST_IN_FLIGHT]
            _set(self._argument_matcher, values, Extent.USUAL, _LONG_ARGUMENT)
            self._arguments_changed = False


def _too_many(values: Sequence[Value]) -> bool:
    return bool(values) and values[-1] is TOO_MANY


def _set(matcher: Matcher, values: Iterable[Value], extent: Extent, long: int = sys.maxsize) -> None:
    """Have a matcher look for these values and no others; of those longer than `long` only for themselves."""
    wanted = dict.fromkeys(values)
    matcher.remove(matcher.values() - wanted.keys())
    new = wanted.keys() - matcher.values()
    many = len(new) > _SPELT_MOST
    forms = {value: forms_of(value, Extent.PLAIN if many or len(value) > long else extent) for value in new}
    matcher.add_all(forms, indexed=not many)


def _matcher_for(text: str, values: Sequence[Value]) -> Matcher:
    """Return what finds the secret arguments of one request in a text: the nested spellings take long to make."""
    if sum(map(len, values)) > _LONG_ARGUMENT:
        return _new_matcher(tuple(values), Extent.PLAIN)  # not kept: it may be all of a large message
    nested = len(values) <= _NESTED_MOST_OF_REQUEST and (len(text) > _LONG_TEXT or _ENCODED.search(text))
    return _kept_matcher(tuple(values), Extent.NESTED if nested else Extent.USUAL)


def _new_matcher(values: tuple[Value, ...], extent: Extent) -> Matcher:
    matcher = Matcher()
    _set(matcher, values, extent)
    return matcher


_kept_matcher = lru_cache(maxsize=16)(_new_matcher)
"""The matchers of the last requests: the arguments of each, several texts of which are looked through."""


def _deep(value: Any, hide: Callable[[str], str]) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {_key(key, hide): _deep(item, hide) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_deep(item, hide) for item in value]
    return _other(value, hide)


def _other(value: Any, hide: Callable[[str], str]) -> Any:
    """Return bytes without secrets, and anything else as it is unless its text has one."""
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value).decode("latin-1")
        safe = hide(text)
        return value if safe == text else safe.encode("latin-1")
    if isinstance(value, int) and -_SMALL < value < _SMALL:
        return value
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - of a plugin it can raise anything
        return f"<{type(value).__name__}>"
    safe = hide(text)
    return value if safe == text else safe


def _key(key: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(key, tuple):
        return tuple(_key(part, hide) for part in key)
    return key if isinstance(key, frozenset) else _deep(key, hide)


SECRETS = SecretValues()
"""The secret values of this process."""


def redact(text: str) -> str:
    """Return a text without the secret values of this process; see `SecretValues.redact`."""
    return SECRETS.redact(text)


__all__ = ["MOST_OF_REQUEST", "SECRETS", "SHORTEST", "TOO_MANY", "SecretValues", "redact"]
