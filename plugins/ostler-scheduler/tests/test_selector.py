from __future__ import annotations

import logging
from collections import Counter

import pytest

from ostler import NoCapacity
from ostler_scheduler.api_types import Judgement, Request
from ostler_scheduler.filters import Filter
from ostler_scheduler.selector import Selector, chosen_judgement, explain_choice, no_capacity_error
from ostler_scheduler.weighers import AllocatedWeigher, FreeSpaceWeigher, Weigher

GIB = 2**30
LOG = logging.getLogger("test.scheduler")


class Raises(Filter, Weigher):
    """Raises for the backend `bad` alone."""

    def __init__(self, error):
        self.error = error

    def why_not(self, candidate, request):
        if candidate.backend == "bad":
            raise self.error
        return ""

    def weigh(self, candidate, request):
        self.why_not(candidate, request)
        return 1.0


class Answers(Filter, Weigher):
    def __init__(self, answer):
        self.answer = answer

    def why_not(self, candidate, request):
        return self.answer

    weigh = why_not


class Later(Filter, Weigher):
    async def why_not(self, candidate, request):
        return ""

    async def weigh(self, candidate, request):
        return 1.0


@pytest.fixture
def chooser(all_filters, rng):
    def make(filters=None, weighers=None):
        filters = all_filters if filters is None else filters
        return Selector(filters, {"free_space": (FreeSpaceWeigher(), 1.0)} if weighers is None else weighers, rng, LOG)

    return make


def test_the_one_with_the_most_room_is_chosen_and_the_others_say_why_not(chooser, candidate, request_for):
    listed = [candidate("a", free=50), candidate("b", free=90), candidate("c", free=5), candidate("d", enabled=False)]
    judged = chooser().evaluate(listed, request_for(10))
    assert [one.backend for one in judged] == ["a", "b", "c", "d"]
    assert [one.dropped_by for one in judged] == ["", "", "capacity", "enabled"]
    assert [one.weights for one in judged] == [{"free_space": 0.0}, {"free_space": 1.0}, {}, {}]
    assert [one.free // GIB for one in judged] == [50, 90, 5, 100]
    chosen = chosen_judgement(judged)
    assert chosen is not None
    assert chosen.backend == "b"
    assert explain_choice(judged) == "the best of 2 candidates left (free_space 1.00)"


def test_the_first_filter_that_objects_is_the_one_named(chooser, candidate, request_for, all_filters):
    turned = dict(reversed(all_filters.items()))
    unfit = candidate(free=1, enabled=False)
    assert chooser().evaluate([unfit], request_for(10))[0].dropped_by == "enabled"
    assert chooser(turned).evaluate([unfit], request_for(10))[0].dropped_by == "capacity"


def test_a_stale_candidate_is_dropped_before_any_filter(chooser, candidate, request_for):
    [judged] = chooser().evaluate([candidate(gone="its service is down", enabled=False)], request_for())
    assert (judged.dropped_by, judged.reason) == ("unavailable", "its service is down")


def test_multipliers_weigh_and_negative_ones_turn_the_preference_round(chooser, candidate, request_for):
    roomy, idle = candidate("roomy", free=90, allocated_bytes=50), candidate("idle", free=50, allocated_bytes=0)

    def first(free_space, allocated):
        weighers = {"free_space": (FreeSpaceWeigher(), free_space), "allocated": (AllocatedWeigher(), allocated)}
        chosen = chosen_judgement(chooser(weighers=weighers).evaluate([roomy, idle], request_for()))
        return chosen.backend, chosen.total

    assert first(2.0, 1.0) == ("roomy", 2.0)
    assert first(1.0, 2.0) == ("idle", 2.0)
    assert first(-1.0, 0.5) == ("idle", 0.5)


def test_the_scale_is_set_by_those_that_are_left(chooser, candidate, request_for):
    listed = [candidate("a", free=20), candidate("b", free=30), candidate("huge", free=9999, enabled=False)]
    assert chooser().evaluate(listed, request_for())[1].weights == {"free_space": 1.0}


def test_chance_decides_among_equals_and_every_one_gets_its_turn(chooser, candidate, request_for):
    listed = [candidate("a"), candidate("b"), candidate("c"), candidate("poor", free=20)]
    ours = chooser()
    wins = Counter(chosen_judgement(ours.evaluate(listed, request_for())).backend for _ in range(300))
    assert set(wins) == {"a", "b", "c"}
    assert min(wins.values()) > 60
    assert explain_choice(ours.evaluate(listed, request_for())).endswith("; chosen at random among 3 equals")


def test_the_same_seed_chooses_the_same(all_filters, candidate, request_for, rng):
    listed = [candidate(name) for name in "abcdef"]

    def run(seed):
        ours = Selector(all_filters, {}, type(rng)(seed), LOG)
        return [chosen_judgement(ours.evaluate(listed, request_for())).backend for _ in range(20)]

    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.failure_mode("Plugins", "a scheduler or a filter that hangs or raises")
@pytest.mark.parametrize("error", [ValueError("no idea"), SystemExit("bye")])
@pytest.mark.parametrize("kind", ["filter", "weigher"])
def test_a_part_that_raises_drops_its_candidate_alone_and_is_logged_once(
    kind, error, chooser, candidate, request_for, all_filters, caplog
):
    part = Raises(error)
    ours = (
        chooser({**all_filters, "odd": part})
        if kind == "filter"
        else chooser(weighers={"odd": (part, 1.0), "free_space": (FreeSpaceWeigher(), 1.0)})
    )
    listed = [candidate("bad", free=99), candidate("good", free=30), candidate("well", free=20)]
    with caplog.at_level(logging.WARNING, LOG.name):
        for _ in range(3):
            judged = ours.evaluate(listed, request_for())
    assert [one.dropped_by for one in judged] == ["odd", "", ""]
    assert judged[0].reason == f"the {kind} odd failed: {type(error).__name__}: {error}"
    assert [one.chosen for one in judged] == [False, True, False]
    assert judged[1].weights["free_space"] == 1.0  # the one that was dropped late does not set the scale
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [(True, "why_not returned True"), (0, "why_not returned 0"), (["x"], "why_not returned ['x']")],
)
def test_a_filter_that_does_not_answer_with_text_is_named(chooser, candidate, request_for, answer, said):
    [judged] = chooser({"odd": Answers(answer)}).evaluate([candidate()], request_for())
    assert judged.dropped_by == "odd"
    assert said in judged.reason


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), "much", None, True])
def test_a_weigher_that_does_not_answer_with_a_finite_number_is_named(chooser, candidate, request_for, answer):
    [judged] = chooser(weighers={"odd": (Answers(answer), 1.0)}).evaluate([candidate()], request_for())
    assert judged.dropped_by == "odd"
    assert judged.reason.endswith("it must return a finite number")


def test_an_async_filter_or_weigher_is_named(chooser, candidate, request_for):
    [filtered] = chooser({"later": Later()}).evaluate([candidate()], request_for())
    assert "why_not is async" in filtered.reason
    [weighed] = chooser(weighers={"later": (Later(), 1.0)}).evaluate([candidate()], request_for())
    assert "weigh is async" in weighed.reason


def test_a_fact_that_is_no_number_drops_its_candidate_with_that_reason(chooser, candidate, request_for):
    odd, good = chooser().evaluate([candidate("odd", free_bytes="plenty"), candidate("good")], request_for())
    assert odd.dropped_by == "capacity"
    assert "free_bytes is not a number: 'plenty'" in odd.reason
    assert good.chosen


def test_no_filters_and_no_weighers_choose_at_random(chooser, candidate, request_for):
    judged = chooser({}, {}).evaluate([candidate("a"), candidate("b", free=1)], request_for())
    assert sum(one.chosen for one in judged) == 1
    assert "no weighers" in explain_choice(judged)


def test_the_only_one_left_says_so(chooser, candidate, request_for):
    judged = chooser().evaluate([candidate("a"), candidate("b", free=1)], request_for())
    assert explain_choice(judged) == "the only one left of 2 candidates"


def test_no_capacity_names_each_filter_and_how_many_it_dropped(chooser, candidate, request_for):
    listed = [candidate("a", free=1), candidate("b", free=2), candidate("c", enabled=False), candidate("d", gone="x")]
    request = request_for(10, features=("snapshot",))
    error = no_capacity_error(chooser().evaluate(listed, request), request)
    assert isinstance(error, NoCapacity)
    assert error.message == (
        "no backend of volume for 10GiB with snapshot: "
        "of 4 candidates capacity dropped 2, enabled dropped 1, unavailable dropped 1"
    )
    assert error.hint == "`ostler scheduler explain volume --size 10GiB --feature snapshot` shows the reasons"
    assert error.details["dropped"] == {"capacity": 2, "enabled": 1, "unavailable": 1}


def test_the_command_that_no_capacity_advises_asks_for_the_same(request_for):
    judged = [Judgement(host="node1", backend="a", dropped_by="host", reason="x")]
    request = Request(topic="volume", size=10 * GIB + 1, host="node2", exclude=("node3", "node4/a"))
    assert no_capacity_error(judged, request).hint == (
        "`ostler scheduler explain volume --size 10737418241 --host node2"
        " --exclude node3 --exclude node4/a` shows the reasons"
    )


def test_no_capacity_without_any_candidate_says_where_to_look(request_for):
    nobody = no_capacity_error([], request_for(0))
    assert nobody.message == "no backend of volume for a request of any size: no service on this topic has reported"
    assert "ostler service list" in nobody.hint
    silent = no_capacity_error([], request_for(1, host="node1"), ["node1"])
    assert silent.message == "no backend of volume for 1GiB on node1: node1 reported, but no driver is ready"
    assert "ostler status" in silent.hint


def test_nobody_is_chosen_from_nothing(chooser, request_for):
    assert chooser().evaluate([], request_for()) == []
    assert chosen_judgement([]) is None
