"""Which role a method needs here."""

import pytest

from ostler.messaging.access.policy import NOBODY, NOBODY_RANK, Policy, RoleOverride, role_rank
from ostler.types import Role


@pytest.mark.parametrize(
    ("rules", "needs"),
    [
        ({}, "viewer"),
        ({"volume.delete": "admin"}, "admin"),
        ({"volume.*": "operator"}, "operator"),
        ({"*.delete": "nobody"}, "nobody"),
        ({"*.*": "operator"}, "operator"),
        ({"volume.*": "admin", "volume.delete": "viewer"}, "viewer"),
        ({"volume.*": "admin", "volume.del*": "operator"}, "operator"),
        ({"*.*": "admin", "*.delete": "operator"}, "operator"),
        ({"lamp.*": "admin", "volume.create": "admin"}, "viewer"),
        # Neither is more exact than the other: the strictest.
        ({"volume.*": "operator", "*.delete": "admin"}, "admin"),
        ({"volume.*": "admin", "*.delete": "operator"}, "admin"),
    ],
)
def test_the_most_exact_line_wins_and_of_equals_the_strictest(rules, needs) -> None:
    assert Policy(rules).required_role("volume", "delete", Role.VIEWER) == needs


def test_a_method_of_a_namespace_is_named_whole() -> None:
    policy = Policy({"volume.admin.*": "admin"})
    assert policy.required_role("volume", "admin.reset", Role.VIEWER) == "admin"
    assert policy.required_role("volume", "reset", Role.VIEWER) == "viewer"


def test_the_control_topic_stays_open_to_admin() -> None:
    policy = Policy({"*.*": "nobody", "ostler.reload": "nobody"})
    assert policy.required_role("ostler", "reload", Role.ADMIN) == "admin"
    assert policy.required_role("ostler", "status", Role.VIEWER) == "admin"
    assert policy.required_role("volume", "list", Role.VIEWER) == NOBODY
    assert policy.admin_lockouts() == [
        '[access.methods] "ostler.reload" = "nobody" leaves the topic ostler open to admin'
    ]


def test_lines_that_fit_nothing_are_said_with_what_was_meant() -> None:
    policy = Policy({"volume.delet": "admin", "vol.*": "admin", "*.nothing": "admin", "volume.delete": "admin"})
    assert policy.unused_rules({"volume": ["delete", "list"]}) == [
        "[access.methods] names \"volume.delet\", but no service here has such a method; did you mean 'volume.delete'?",
        "[access.methods] names \"vol.*\", but no service here has such a method; did you mean 'volume'?",
        '[access.methods] names "*.nothing", but no service here has such a method',
    ]


def test_a_topic_whose_methods_are_not_known_is_not_complained_of() -> None:
    assert Policy({"volume.delete": "admin"}).unused_rules({"volume": None}) == []


def test_nobody_ranks_above_all() -> None:
    assert role_rank(NOBODY) == NOBODY_RANK > role_rank("admin") > role_rank("viewer")
    assert RoleOverride("volume.delete", "operator", "viewer").is_relaxed
    assert not RoleOverride("volume.delete", "operator", "nobody").is_relaxed
