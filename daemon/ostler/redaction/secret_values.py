"""Secret values, and the one function that takes them out of a text.

What the configuration names as a secret is known here from the moment it is read, and secret arguments of requests
while these are in progress. Every text that leaves (logs of any logger, errors, states and why, events, progress,
audit, what is written to the database or sent to other hosts) goes through here where it becomes a text that is kept or
sent. This is one object for the process: a line of a library's logger, on a thread of its own, belongs to no daemon.

Looked for are a value and its usual spellings, also one in another: URL-encoded, base64 (also inside of a longer text),
hexadecimal, escaped as in JSON, HTML, Python and a shell. Tokens (`ostler token new`) are known by their shape and
looked for as they are. What was changed otherwise, or is split, cannot be found.
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
from ostler.redaction.matcher import Matcher, mask_spans, merge_spans
from ostler.redaction.spellings import MIN_SECRET_LENGTH, SpellingExtent, Value, spellings_of
from ostler.redaction.token_shape import TOKEN_LENGTH, TOKEN_MARK, find_tokens

_TOKEN_MARK_BYTES = TOKEN_MARK.encode()
_MIN_ARGUMENT_LENGTH = 8
"""Characters of the shortest argument that is looked for in texts that belong to no request: a caller must not blank
out the words of others."""
_SUPERSEDED_TTL = 24 * 3600.0
"""Seconds for which a value is looked for after another one took its place: an old one may still be in a queue, or in a
driver that was too busy to be rebuilt."""
_MAX_SUPERSEDED = 256
_ENDED_ARGUMENT_TTL = 60.0
"""Seconds for which an argument is looked for after its request has ended: threads that it started may go on."""
_MAX_ARGUMENTS = 2000
_MAX_ENDED = 256
_MAX_SPELT = 256
"""Of more values at once only themselves are looked for: the spellings of each of thirty thousand would hold up the
loop for seconds."""
_MAX_NESTED = 32
"""Of more values, or more at once, one spelling in another is not looked for: each value takes 150 KB with them."""
_MIN_NUMBER = 10 ** (MIN_SECRET_LENGTH - 2)
"""A number below it is too short to be a secret that is looked for, with its sign as well."""
_MAX_NESTED_PER_REQUEST = 4
_ENCODED_PATTERN = re.compile(r"[A-Za-z0-9+/_-]{16}|(?:[0-9A-Fa-f]{2}[: -]){8}")
"""What a text that has one spelling in another has as well; an ordinary one has it seldom."""
_LONG_TEXT_LENGTH = 4096
_LONG_ARGUMENTS_LENGTH = 256 * 1024
"""Characters of the secret arguments of one request above which only they themselves are looked for, and only while it
runs: they could be as large as a message."""
_MAX_CUT_LOOKAHEAD = 64 * 1024
"""Characters beyond the place of a cut that are looked through at most, so that no secret is cut in two."""
_MAX_EXPANSION = 6
"""Characters that one character of a secret becomes in its usual spellings."""


TOO_MANY_MASK: Value = "(not shown: the request has more secret values than can be searched for)"
"""Stands, alone or as the last, for more secret values than `MAX_VALUES_PER_REQUEST`.

Looking for tens of thousands in each text would block the loop; what belongs to their request is not shown at all then.
"""
MAX_VALUES_PER_REQUEST = 2000


class SecretValues:
    """The secret values of a process. Any thread.

    Values of the configuration come by generations: each load of it begins one, and when that has been put into force,
    what it did not read again is superseded, and forgotten a day later. The spellings of a value are made when a text
    is looked through for the first time after it became known.

    Args:
        monotonic: Returns the time in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._generation = 0
        self._values: dict[str, int] = {}
        self._superseded: dict[str, float] = {}
        self._matcher = Matcher()
        self._are_values_changed = False
        self._longest_value = 0
        self._arguments: dict[Value, int] = {}
        self._ended_arguments: dict[Value, float] = {}
        self._argument_matcher = Matcher()
        self._arguments_changed = False

    @property
    def has_values(self) -> bool:
        """Whether the configuration has secret values."""
        return bool(self._values)

    def begin_update(self) -> None:
        """Begin to read the configuration again."""
        self._generation += 1

    def add(self, value: str) -> None:
        """Record a secret value that was read."""
        with self._lock:
            if value not in self._values:
                self._are_values_changed = True
                self._longest_value = max(self._longest_value, len(value))
            self._values[value] = self._generation
            self._superseded.pop(value, None)

    def commit_update(self) -> None:
        """Record that what was read last is in force: what was not read again may be forgotten after a while."""
        now = self._monotonic()
        with self._lock:
            for value, generation in self._values.items():
                if generation < self._generation:
                    self._superseded.setdefault(value, now)
            old = [value for value, at in self._superseded.items() if now - at > _SUPERSEDED_TTL]
            old += list(self._superseded)[: max(0, len(self._superseded) - len(old) - _MAX_SUPERSEDED)]
            for value in old:
                self._superseded.pop(value, None)
                self._values.pop(value, None)
                self._are_values_changed = True

    def add_arguments(self, values: Sequence[Value]) -> bool:
        """Look for secret arguments of a request until `leave`; return False for too many, which are not."""
        if _has_too_many(values) or len(values) > _MAX_ARGUMENTS:
            return False
        with self._lock:
            for value in values:
                self._arguments[value] = self._arguments.get(value, 0) + 1
            self._arguments_changed = True
        return True

    def remove_arguments(self, values: Iterable[Value]) -> None:
        """Record that a request with secret arguments has ended."""
        now = self._monotonic()
        with self._lock:
            for value in values:
                left = self._arguments.get(value, 0) - 1
                if left > 0:
                    self._arguments[value] = left
                elif self._arguments.pop(value, None) is not None and len(value) <= _LONG_ARGUMENTS_LENGTH:
                    self._ended_arguments.pop(value, None)
                    self._ended_arguments[value] = now + _ENDED_ARGUMENT_TTL
            while self._ended_arguments and (
                len(self._ended_arguments) > _MAX_ENDED or next(iter(self._ended_arguments.values())) < now
            ):
                del self._ended_arguments[next(iter(self._ended_arguments))]
            self._arguments_changed = True

    def redact(self, text: str, *, arguments: bool = True, extra_values: Sequence[Value] = ()) -> str:
        """Return a text without the values and their spellings.

        Args:
            text: What is to be kept, sent or logged.
            arguments: Whether arguments of all requests in progress are looked for too; not in a text that belongs to a
                request, whose own are known.
            extra_values: Further values that are looked for: those of the request that the text belongs to.
        """
        if _has_too_many(extra_values):
            return str(TOO_MANY_MASK) if text else text
        spans = self._find_spans(text, arguments, extra_values)
        return mask_spans(text, spans) if spans else text

    def redact_and_cut(self, text: str, max_length: int, *, extra_values: Sequence[Value] = ()) -> str:
        """Return a text, of a longer one the beginning and how many characters are missing; no secret is cut in two.

        It is not redacted by this: a text that is cut is looked through twice, once for what stands at the cut.
        """
        if len(text) <= max_length:
            return text
        if _has_too_many(extra_values):
            return str(TOO_MANY_MASK)
        longest = max(map(len, (*extra_values, *tuple(self._arguments), *tuple(self._ended_arguments))), default=0)
        beyond = max(min(_MAX_CUT_LOOKAHEAD, _MAX_EXPANSION * max(self._longest_value, longest)), TOKEN_LENGTH)
        start = max(0, max_length - beyond)
        around = self._find_spans(text[start : max_length + beyond], arguments=True, extra_values=extra_values)
        end = next((start + begin for begin, end in around if start + begin < max_length < start + end), max_length)
        return f"{text[:end]}... ({len(text) - end} more characters)"

    def redact_deep(self, value: Any, *, extra_values: Sequence[Value] = ()) -> Any:
        """Return a value of plain types, in which no text or bytes at any depth hold one of these; keys included."""
        return _redact_deep(value, lambda text: self.redact(text, arguments=False, extra_values=extra_values))

    def has_secret_in_bytes(self, data: bytes, *, extra_values: Sequence[Value] = ()) -> bool:
        """Return whether one of the values stands in encoded data; costs next to nothing when there are none."""
        return _has_too_many(extra_values) or bool(
            (self._values or extra_values or _TOKEN_MARK_BYTES in data)
            and self._find_spans(data.decode("latin-1"), arguments=False, extra_values=extra_values)
        )

    def _find_spans(self, text: str, arguments: bool, extra_values: Sequence[Value]) -> list[Span]:
        found: list[Span] = find_tokens(text)
        if self._values or self._are_values_changed:
            if self._are_values_changed:
                self._update_values()
            found += self._matcher.find_spans(text)
        if extra_values:
            found += _matcher_for(text, extra_values).find_spans(text)
        if arguments and (self._arguments or self._ended_arguments):
            if self._arguments_changed:
                self._update_arguments()
            found += self._argument_matcher.find_spans(text)
        return merge_spans(found) if found else found

    def _update_values(self) -> None:
        with self._lock:
            if not self._are_values_changed:  # another thread was faster
                return
            self._longest_value = max(map(len, self._values), default=0)
            extent = SpellingExtent.NESTED if len(self._values) <= _MAX_NESTED else SpellingExtent.USUAL
            _update_matcher(self._matcher, self._values, extent)
            self._are_values_changed = False  # at last: nobody looks a text through before all is there

    def _update_arguments(self) -> None:
        with self._lock:
            if not self._arguments_changed:
                return
            values = [
                value for value in {**self._ended_arguments, **self._arguments} if len(value) >= _MIN_ARGUMENT_LENGTH
            ]
            _update_matcher(self._argument_matcher, values, SpellingExtent.USUAL, _LONG_ARGUMENTS_LENGTH)
            self._arguments_changed = False


def _has_too_many(values: Sequence[Value]) -> bool:
    return bool(values) and values[-1] is TOO_MANY_MASK


def _update_matcher(matcher: Matcher, values: Iterable[Value], extent: SpellingExtent, long: int = sys.maxsize) -> None:
    """Have a matcher look for these values and no others; of those longer than `long` only for themselves."""
    wanted = dict.fromkeys(values)
    matcher.remove(matcher.values() - wanted.keys())
    new = wanted.keys() - matcher.values()
    many = len(new) > _MAX_SPELT
    forms = {value: spellings_of(value, SpellingExtent.PLAIN if many or len(value) > long else extent) for value in new}
    matcher.add_all(forms, indexed=not many)


def _matcher_for(text: str, values: Sequence[Value]) -> Matcher:
    """Return what finds the secret arguments of one request in a text: the nested spellings take long to make."""
    if sum(map(len, values)) > _LONG_ARGUMENTS_LENGTH:
        return _new_matcher(tuple(values), SpellingExtent.PLAIN)  # not kept: it may be all of a large message
    nested = len(values) <= _MAX_NESTED_PER_REQUEST and (len(text) > _LONG_TEXT_LENGTH or _ENCODED_PATTERN.search(text))
    return _cached_matcher(tuple(values), SpellingExtent.NESTED if nested else SpellingExtent.USUAL)


def _new_matcher(values: tuple[Value, ...], extent: SpellingExtent) -> Matcher:
    matcher = Matcher()
    _update_matcher(matcher, values, extent)
    return matcher


_cached_matcher = lru_cache(maxsize=16)(_new_matcher)
"""The matchers of the last requests: the arguments of each, several texts of which are looked through."""


def _redact_deep(value: Any, hide: Callable[[str], str]) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {_redact_key(key, hide): _redact_deep(item, hide) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_deep(item, hide) for item in value]
    return _redact_other(value, hide)


def _redact_other(value: Any, hide: Callable[[str], str]) -> Any:
    """Return bytes without secrets, and anything else as it is unless its text has one."""
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value).decode("latin-1")
        safe = hide(text)
        return value if safe == text else safe.encode("latin-1")
    if isinstance(value, int) and -_MIN_NUMBER < value < _MIN_NUMBER:
        return value
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - of a plugin it can raise anything
        return f"<{type(value).__name__}>"
    safe = hide(text)
    return value if safe == text else safe


def _redact_key(key: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(key, tuple):
        return tuple(_redact_key(part, hide) for part in key)
    return key if isinstance(key, frozenset) else _redact_deep(key, hide)


SECRETS = SecretValues()
"""The secret values of this process."""


def redact(text: str) -> str:
    """Return a text without the secret values of this process; see `SecretValues.redact`."""
    return SECRETS.redact(text)


__all__ = ["MAX_VALUES_PER_REQUEST", "MIN_SECRET_LENGTH", "SECRETS", "TOO_MANY_MASK", "SecretValues", "redact"]
