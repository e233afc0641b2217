import pytest

from ostler.service.start_order import DependencyCycle, start_order


def test_services_come_after_what_they_need() -> None:
    order = start_order({"volume": ["scheduler"], "scheduler": [], "backup": ["volume"]})
    assert order == ["scheduler", "volume", "backup"]


def test_services_that_need_nothing_stay_in_the_order_given() -> None:
    assert start_order({"b": [], "a": []}) == ["b", "a"]


def test_a_needed_service_that_is_not_there_is_left_to_the_start_to_refuse() -> None:
    assert start_order({"a": ["nowhere"]}) == ["a"]


def test_a_cycle_is_printed_all_the_way_round() -> None:
    with pytest.raises(DependencyCycle, match="b -> c -> b") as caught:
        start_order({"a": ["b"], "b": ["c"], "c": ["b"]})
    assert caught.value.details["cycle"] == ["b", "c", "b"]
