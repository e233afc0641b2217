from __future__ import annotations

import pytest

from ostler import ConfigurationError
from ostler_scheduler.filters import CapacityFilter, EnabledFilter
from ostler_scheduler.loading import make_filters, make_weighers
from ostler_scheduler.weighers import FreeSpaceWeigher, RandomWeigher

FILTERS = {"capacity": CapacityFilter, "enabled": EnabledFilter}
WEIGHERS = {"free_space": FreeSpaceWeigher, "random": RandomWeigher}


def test_filters_come_in_the_order_of_the_option_each_once():
    made = make_filters(["enabled", "capacity", "enabled"], FILTERS, "services.scheduler.filters")
    assert [(name, type(part)) for name, part in made.items()] == [
        ("enabled", EnabledFilter), ("capacity", CapacityFilter),
    ]  # fmt: skip


def test_all_unknown_names_are_said_at_once_with_the_ones_meant():
    with pytest.raises(ConfigurationError) as caught:
        make_filters(["capasity", "enabled", "zzz"], FILTERS, "services.scheduler.filters")
    assert caught.value.message == (
        "services.scheduler.filters: "
        'no installed plugin provides the filter "capasity" (did you mean "capacity"?), "zzz"'
    )
    assert caught.value.hint == "available: capacity, enabled"
    with pytest.raises(ConfigurationError, match=r'weigher "fre_space" \(did you mean "free_space"'):
        make_weighers({"fre_space": 1.0}, WEIGHERS, "services.scheduler.weighers")


def test_without_any_plugin_the_known_ones_are_none():
    with pytest.raises(ConfigurationError, match="available: none"):
        make_filters(["enabled"], {}, "services.scheduler.filters")


def test_a_weigher_with_multiplier_0_is_left_out():
    made = make_weighers({"free_space": 2.0, "random": 0.0}, WEIGHERS, "services.scheduler.weighers")
    assert {name: multiplier for name, (_, multiplier) in made.items()} == {"free_space": 2.0}


def test_an_endless_multiplier_is_refused():
    with pytest.raises(ConfigurationError, match="multiplier of random must be a finite number"):
        make_weighers({"random": float("inf")}, WEIGHERS, "services.scheduler.weighers")


def test_a_part_that_cannot_be_made_is_named():
    class Needs(EnabledFilter):
        def __init__(self, what):
            self.what = what

    with pytest.raises(ConfigurationError, match='cannot create the filter "needs": TypeError'):
        make_filters(["needs"], {"needs": Needs}, "services.scheduler.filters")


def test_a_part_of_another_kind_is_named():
    with pytest.raises(ConfigurationError, match='the filter "random" is a RandomWeigher, not a Filter'):
        make_filters(["random"], WEIGHERS, "services.scheduler.filters")


def test_an_object_that_is_there_already_will_do():
    ready = CapacityFilter()
    assert make_filters(["mine"], {"mine": ready}, "services.scheduler.filters")["mine"] is ready
