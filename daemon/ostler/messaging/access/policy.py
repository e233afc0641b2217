"""The roles that methods require on this host: `[access.methods]` overrides `@exposed`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from ostler.spelling import nearest, suggest
from ostler.types import CONTROL_TOPIC, ROLE_ORDER, Role

NOBODY = "nobody"
"""Instead of a role: the method is closed to everybody who comes over a socket."""
NOBODY_RANK = 1 + max(ROLE_ORDER.values())

_EXACT_SCORE = 1_000_000


class MethodRule(msgspec.Struct, frozen=True):
    """One line of `[access.methods]`: a topic and a method, each with `*` for any run of characters, and a role."""

    topic: str
    method: str
    role: str

    @property
    def key(self) -> str:
        """The line's key."""
        return f"{self.topic}.{self.method}"

    def matches(self, topic: str, method: str) -> bool:
        """Return whether it speaks of this method."""
        return _matches(self.topic, topic) and _matches(self.method, method)

    def is_more_specific_than(self, other: MethodRule) -> bool:
        """Return whether it says more exactly what it means, in topic or method, and less exactly in neither."""
        mine = _specificity(self.topic), _specificity(self.method)
        theirs = _specificity(other.topic), _specificity(other.method)
        return mine != theirs and all(one >= two for one, two in zip(mine, theirs, strict=True))

    @property
    def rank(self) -> int:
        """The rank that a caller needs."""
        return role_rank(self.role)


class RoleOverride(msgspec.Struct, frozen=True):
    """A method whose role differs from the one that its author set."""

    full_name: str
    declared_role: str
    required_role: str

    @property
    def is_relaxed(self) -> bool:
        """Whether more callers may call it than its author intended."""
        return role_rank(self.required_role) < role_rank(self.declared_role)


class Policy:
    """The roles of `[access.methods]`.

    Args:
        rules: `topic.method` (with `*`) to a role or `nobody`.
    """

    def __init__(self, rules: Mapping[str, str] | None = None) -> None:
        self.rules = [_parse_rule(key, role) for key, role in (rules or {}).items()]

    def required_role(self, topic: str, method: str, declared_role: Role) -> str:
        """Return the role that a method needs here, or `nobody`.

        The most exact line wins. Of several where none is more exact than the other (one names the topic, one the
        method) the strictest does. The topic `ostler` always stays open to admin, who could not undo it otherwise.

        Args:
            topic: The method's topic.
            method: Its name.
            declared_role: The role that `@exposed` sets.
        """
        fitting = [rule for rule in self.rules if rule.matches(topic, method)]
        closest = [rule for rule in fitting if not any(other.is_more_specific_than(rule) for other in fitting)]
        if not closest:
            return str(declared_role)
        strictest = max(closest, key=lambda rule: rule.rank)
        return str(Role.ADMIN) if topic == CONTROL_TOPIC and strictest.rank > ROLE_ORDER[Role.ADMIN] else strictest.role

    def unused_rules(self, exposed_methods: Mapping[str, Iterable[str] | None]) -> list[str]:
        """Return a line for each rule that fits nothing that is offered.

        Args:
            exposed_methods: Topic to the names of its methods; None for one whose methods are not known.
        """
        known = {topic: list(methods) for topic, methods in exposed_methods.items() if methods is not None}
        unknown = [topic for topic, methods in exposed_methods.items() if methods is None]
        return [
            f'[access.methods] names "{rule.key}", but no service here has such a method{_suggest_rule(rule, known)}'
            for rule in self.rules
            if not any(_matches(rule.topic, topic) for topic in unknown)
            and not any(rule.matches(topic, method) for topic, methods in known.items() for method in methods)
        ]

    def admin_lockouts(self) -> list[str]:
        """Return a line for each rule that would close a part of the topic `ostler` to admin, and does not."""
        return [
            f'[access.methods] "{rule.key}" = "nobody" leaves the topic {CONTROL_TOPIC} open to admin'
            for rule in self.rules
            if rule.role == NOBODY and rule.topic == CONTROL_TOPIC
        ]


def role_rank(role: str) -> int:
    """Return the rank of a role; that of `nobody` is above all."""
    return NOBODY_RANK if role == NOBODY else ROLE_ORDER[Role(role)]


def _parse_rule(key: str, role: str) -> MethodRule:
    topic, _, method = key.partition(".")
    return MethodRule(topic, method or "*", role)


def _matches(pattern: str, name: str) -> bool:
    if "*" not in pattern:
        return pattern == name
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def _specificity(pattern: str) -> int:
    return len(pattern.replace("*", "")) if "*" in pattern else _EXACT_SCORE


def _suggest_rule(rule: MethodRule, known: Mapping[str, list[str]]) -> str:
    if "*" in rule.topic and "*" in rule.method:
        return ""
    topics = [rule.topic] if rule.topic in known else list(known)
    unknown_topic = rule.topic not in known and "*" not in rule.topic
    if unknown_topic and ("*" in rule.method or not nearest(rule.topic, known)):
        hint = suggest(rule.topic, known)
        return f"; {hint}" if hint else ""
    methods = [f"{topic}.{method}" for topic in topics for method in known[topic]]
    return f"; {suggest(rule.key, methods)}" if nearest(rule.key, methods) else ""
