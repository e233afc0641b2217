"""What a method asks of its callers here: the roles of `[access.methods]` over those of `@exposed`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from ostler.spelling import nearest, suggest
from ostler.types import CONTROL_TOPIC, ROLE_ORDER, Role

NOBODY = "nobody"
"""Instead of a role: the method is closed to everybody who comes over a socket."""
NOBODY_RANK = 1 + max(ROLE_ORDER.values())

_EXACT = 1_000_000


class Rule(msgspec.Struct, frozen=True):
    """One line of `[access.methods]`: a topic and a method, each with `*` for any run of characters, and a role."""

    topic: str
    method: str
    role: str

    @property
    def key(self) -> str:
        """The line's key."""
        return f"{self.topic}.{self.method}"

    def fits(self, topic: str, method: str) -> bool:
        """Return whether it speaks of this method."""
        return _fits(self.topic, topic) and _fits(self.method, method)

    def closer_than(self, other: Rule) -> bool:
        """Return whether it says more exactly what it means, in topic or method, and less exactly in neither."""
        mine = _exactness(self.topic), _exactness(self.method)
        theirs = _exactness(other.topic), _exactness(other.method)
        return mine != theirs and all(one >= two for one, two in zip(mine, theirs, strict=True))

    @property
    def rank(self) -> int:
        """The rank that a caller needs."""
        return rank_of(self.role)


class Change(msgspec.Struct, frozen=True):
    """A method whose role is another than its author asked for."""

    where: str
    asked: str
    needs: str

    @property
    def opens(self) -> bool:
        """Whether more callers may call it than its author meant."""
        return rank_of(self.needs) < rank_of(self.asked)


class Policy:
    """The roles of `[access.methods]`.

    Args:
        rules: `topic.method` (with `*`) to a role or `nobody`.
    """

    def __init__(self, rules: Mapping[str, str] | None = None) -> None:
        self.rules = [_rule(key, role) for key, role in (rules or {}).items()]

    def role(self, topic: str, method: str, asked: Role) -> str:
        """Return the role that a method needs here, or `nobody`.

        The most exact line wins. Of several where none is more exact than the other (one names the topic, one the
        method) the strictest does. The topic `ostler` always stays open to admin, who could not undo it otherwise.

        Args:
            topic: The method's topic.
            method: Its name.
            asked: The role that `@exposed` asks for.
        """
        fitting = [rule for rule in self.rules if rule.fits(topic, method)]
        closest = [rule for rule in fitting if not any(other.closer_than(rule) for other in fitting)]
        if not closest:
            return str(asked)
        strictest = max(closest, key=lambda rule: rule.rank)
        return str(Role.ADMIN) if topic == CONTROL_TOPIC and strictest.rank > ROLE_ORDER[Role.ADMIN] else strictest.role

    def unused(self, offers: Mapping[str, Iterable[str] | None]) -> list[str]:
        """Return a line for each rule that fits nothing that is offered.

        Args:
            offers: Topic to the names of its methods; None for one whose methods are not known.
        """
        known = {topic: list(methods) for topic, methods in offers.items() if methods is not None}
        unknown = [topic for topic, methods in offers.items() if methods is None]
        return [
            f'[access.methods] names "{rule.key}", and no service here has such a method{_meant(rule, known)}'
            for rule in self.rules
            if not any(_fits(rule.topic, topic) for topic in unknown)
            and not any(rule.fits(topic, method) for topic, methods in known.items() for method in methods)
        ]

    def locks(self) -> list[str]:
        """Return a line for each rule that would close a part of the topic `ostler` to admin, and does not."""
        return [
            f'[access.methods] "{rule.key}" = "nobody" leaves the topic {CONTROL_TOPIC} open to admin'
            for rule in self.rules
            if rule.role == NOBODY and rule.topic == CONTROL_TOPIC
        ]


def rank_of(role: str) -> int:
    """Return the rank of a role; that of `nobody` is above all."""
    return NOBODY_RANK if role == NOBODY else ROLE_ORDER[Role(role)]


def _rule(key: str, role: str) -> Rule:
    topic, _, method = key.partition(".")
    return Rule(topic, method or "*", role)


def _fits(pattern: str, name: str) -> bool:
    if "*" not in pattern:
        return pattern == name
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def _exactness(pattern: str) -> int:
    return len(pattern.replace("*", "")) if "*" in pattern else _EXACT


def _meant(rule: Rule, known: Mapping[str, list[str]]) -> str:
    if "*" in rule.topic and "*" in rule.method:
        return ""
    topics = [rule.topic] if rule.topic in known else list(known)
    unknown_topic = rule.topic not in known and "*" not in rule.topic
    if unknown_topic and ("*" in rule.method or not nearest(rule.topic, known)):
        hint = suggest(rule.topic, known)
        return f"; {hint}" if hint else ""
    methods = [f"{topic}.{method}" for topic in topics for method in known[topic]]
    return f"; {suggest(rule.key, methods)}" if nearest(rule.key, methods) else ""
