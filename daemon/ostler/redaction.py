"""Secret values, and the one function that takes them out of a text.

What the configuration names as a secret is known here from the moment it is read, and secret arguments of requests
while these are under way. Every text that leaves (logs of any logger, errors, states and why, events, progress, audit,
what is written to the database or sent to other hosts) goes through here where it becomes a text that is kept or sent.
This is one object for the process: a line of a library's logger, on a thread of its own, belongs to no daemon.

Looked for are a value and its usual spellings: URL-encoded, base64 (also inside of a longer text), hexadecimal, escaped
as in JSON, Python and a shell. What was changed otherwise, or is split, cannot be found.
"""

from __future__ import annotations

import base64
import json
import shlex
import threading
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 6
"""Characters of the shortest value that is looked for in texts; a shorter one is hidden by its name alone."""
_SHORTEST_IN_FLIGHT = 8
"""The same for arguments, in texts that belong to no request: a caller must not blank out the words of others."""
_KEEP_SUPERSEDED = 24 * 3600.0
"""Seconds for which a value is looked for after another one took its place: an old one may still be in a queue, or in a
driver that was too busy to be built anew."""
_SUPERSEDED_MOST = 256
_KEEP_ARGUMENT = 60.0
"""Seconds for which an argument is looked for after its request has ended: threads that it started may go on."""
_ARGUMENT_FORMS_MOST = 2000


def forms_of(text: str) -> set[str]:
    """Return the spellings of a secret text that are looked for; those that are too short are left out."""
    if len(text) < SHORTEST:
        return set()
    raw = text.encode("utf-8", "surrogatepass")
    quoted = {quote(raw), quote(raw, safe=""), quote_plus(raw)}
    spelt = {
        text, text.strip(), repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1],
        shlex.quote(text), raw.hex(), raw.hex().upper(), *quoted, *map(_lower_escapes, quoted), *_base64_cores(raw),
    }  # fmt: skip
    return {form for form in spelt if len(form) >= SHORTEST}


def _lower_escapes(quoted: str) -> str:
    """Return a URL-encoded text whose escapes are in lower case, as some libraries write them."""
    parts = quoted.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def _base64_cores(raw: bytes) -> Iterable[str]:
    """Return what a value is in base64 wherever in a longer text it begins: of each alignment what it alone decides."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode()
        begin = -(-before * 8 // 6)
        end = (before + len(raw)) * 8 // 6
        core = text[begin:end]
        yield core
        yield core.replace("+", "-").replace("/", "_")


class SecretValues:
    """The secret values of a process. Any thread.

    Values of the configuration come by generations: each load of it begins one, and when that has been put into force,
    what it did not read again is superseded, and forgotten a day later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._values: dict[str, int] = {}
        self._superseded: dict[str, float] = {}
        self._forms: tuple[str, ...] = ()
        self._packed: tuple[bytes, ...] = ()
        self._arguments: dict[str, int] = {}
        self._ended: dict[str, float] = {}

    @property
    def forms(self) -> tuple[str, ...]:
        """The spellings of the configuration's values, longest first; empty when there are none."""
        return self._forms

    def begin(self) -> None:
        """Begin to read the configuration anew."""
        self._generation += 1

    def add(self, value: str) -> None:
        """Take note of a secret value that was read."""
        with self._lock:
            known = value in self._values
            self._values[value] = self._generation
            self._superseded.pop(value, None)
            if not known:
                self._build()

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
            if old:
                self._build()

    def enter(self, forms: Iterable[str]) -> None:
        """Look for the spellings of secret arguments until `leave`."""
        with self._lock:
            for form in forms:
                self._arguments[form] = self._arguments.get(form, 0) + 1

    def leave(self, forms: Iterable[str]) -> None:
        """Take note that a request with secret arguments has ended."""
        now = monotonic()
        with self._lock:
            for form in forms:
                left = self._arguments.get(form, 0) - 1
                if left > 0:
                    self._arguments[form] = left
                elif self._arguments.pop(form, None) is not None:
                    self._ended.pop(form, None)
                    self._ended[form] = now + _KEEP_ARGUMENT
            while self._ended and (len(self._ended) > _ARGUMENT_FORMS_MOST or next(iter(self._ended.values())) < now):
                del self._ended[next(iter(self._ended))]

    def redact(self, text: str, *, arguments: bool = True) -> str:
        """Return a text without the values and their spellings.

        Args:
            text: What is to be kept, sent or logged.
            arguments: Whether arguments of all requests under way are looked for too; not in a text that belongs to a
                request, whose own are known.
        """
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        if arguments and (self._arguments or self._ended):
            with self._lock:
                forms = sorted({*self._arguments, *self._ended}, key=len, reverse=True)
            for form in forms:
                if len(form) >= _SHORTEST_IN_FLIGHT and form in text:
                    text = text.replace(form, MASK)
        return text

    def redact_deep(self, value: Any) -> Any:
        """Return a value of plain types, in which no text at any depth holds one of the values; keys included."""
        if isinstance(value, str):
            return self.redact(value, arguments=False)
        if isinstance(value, Mapping):
            return {self.redact_deep(key): self.redact_deep(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_deep(item) for item in value]
        return value

    def in_bytes(self, data: bytes) -> bool:
        """Return whether one of the values stands in encoded data; costs next to nothing when there are none."""
        return any(form in data for form in self._packed)

    def _build(self) -> None:
        forms = {form for value in self._values for form in forms_of(value)}
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._packed = tuple(form.encode("utf-8", "surrogatepass") for form in self._forms)


SECRETS = SecretValues()
"""The secret values of this process."""


def redact(text: str) -> str:
    """Return a text without the secret values of this process; see `SecretValues.redact`."""
    return SECRETS.redact(text)
