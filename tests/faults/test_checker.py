"""The checker itself: fed with what was lost, done twice or left half done, it says so; else it says nothing."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from checker import Checker
from history import BEGIN, DONE, REFUSED, UNKNOWN, History, HistoryReader, Journal
from observation import Observation, SeenOperation, content_is_right


def history(*records: tuple[str, str, str, dict]) -> History:
    made = History()
    for what, key, phase, details in records:
        made.add(what, key, phase, details)
    return made


def submitted(name: str = "x", method: str = "resumed", steps: int = 2, phase: str = DONE) -> list:
    details = {"method": method, "steps": steps}
    return [("submit", name, BEGIN, details), ("submit", name, phase, details)]


def row(state: str = "succeeded", method: str = "resumed", *, attempts: int = 1, **more) -> SeenOperation:
    more.setdefault("result", "x:2" if state == "succeeded" else None)
    return SeenOperation("work", method, state, attempts, **{"interruptions": 0, **more})


DONE_ACTS = {"x s0": 1, "x s1": 1}


def seen(*, acts: dict | None = None, x: SeenOperation | None = None, **more) -> Observation:
    operations = {} if x is None else {"x": x}
    return Observation(operations=operations, acts=Counter(acts or {}), **more)


def volume(name: str, phase: str, after: tuple | None, what: str = "volume") -> tuple:
    return (what, name, phase, {"after": after})


def test_an_empty_history_is_kept() -> None:
    checker = Checker()
    assert not checker.check_killed(History(), Observation())
    assert not checker.check_settled(History(), Observation())


def test_what_went_well_is_not_complained_about() -> None:
    told = history(
        *submitted(), *submitted("lost", phase=UNKNOWN),
        ("set", "k", BEGIN, {"value": 1}), ("set", "k", DONE, {"value": 1}),
        volume("v", BEGIN, (512, False)), volume("v", DONE, (512, False)),
        volume("w", BEGIN, (512, False)), volume("w", UNKNOWN, (512, False)),
        ("event", "reader", DONE, {"item": [1, 7, 1, "a"]}), ("gap", "reader", DONE, {"item": [2, 4]}),
        ("event", "reader", DONE, {"item": [5, 7, 2, "late"]}),
    )  # fmt: skip
    now = seen(
        x=row(), acts=DONE_ACTS, values={"k": 1}, volumes={"v": ("available", 512)}, volume_files={"v": 512},
        events={1: (7, "a")}, last_event=1, ticks=[("1", "begin"), ("1", "end"), ("2", "begin")], recorded_ticks=1,
    )  # fmt: skip
    checker = Checker()
    assert not checker.check_killed(told, now)
    assert not checker.check_settled(told, now)


class TestOperations:
    def test_one_that_was_accepted_and_is_not_there_is_lost(self) -> None:
        assert "x (resumed) was accepted and is lost" in Checker().check_killed(history(*submitted()), seen())[0]

    def test_one_of_which_nobody_was_told_may_be_lost(self) -> None:
        assert not Checker().check_killed(history(*submitted(phase=UNKNOWN)), seen())

    def test_one_that_was_refused_and_is_done_all_the_same(self) -> None:
        told = history(*submitted(phase=REFUSED))
        assert Checker().check_killed(told, seen(acts={"x s0": 1})) == ["operation x was refused, and was done"]
        assert "was refused, and is queued" in Checker().check_killed(told, seen(x=row("queued")))[0]

    def test_one_that_was_stored_and_is_gone(self) -> None:
        checker = Checker()
        told = history(*submitted(phase=UNKNOWN))
        assert not checker.check_killed(told, seen(x=row("running")))
        assert "was stored as running and is gone" in checker.check_killed(told, seen())[0]

    def test_one_that_has_ended_may_be_removed_only_where_not_all_are_kept(self) -> None:
        for keeps_all in (True, False):
            checker = Checker(keeps_all=keeps_all)
            assert not checker.check_killed(history(*submitted()), seen(x=row(), acts=DONE_ACTS))
            assert bool(checker.check_killed(history(*submitted()), seen(acts=DONE_ACTS))) is keeps_all

    @pytest.mark.parametrize("now", [row("running"), row("failed"), row(result="x:3")])
    def test_one_that_has_ended_and_has_another_end_now(self, now) -> None:
        checker = Checker()
        told = history(*submitted())
        assert not checker.check_killed(told, seen(x=row(), acts=DONE_ACTS))
        assert "x had ended: succeeded" in checker.check_killed(told, seen(x=now, acts=DONE_ACTS))[0]

    def test_an_end_that_a_client_was_told_of_and_that_is_lost(self) -> None:
        told = history(*submitted(), ("ended", "x", DONE, {"state": "succeeded", "result": "x:2"}))
        assert (
            "ended as ('succeeded', 'x:2'), and is now queued" in Checker().check_killed(told, seen(x=row("queued")))[0]
        )

    def test_a_step_that_is_done_again_after_it_was_recorded(self) -> None:
        checker = Checker()
        told = history(*submitted())
        before = row("running", steps=frozenset({"s0"}))
        assert not checker.check_killed(told, seen(x=before, acts={"x s0": 1}))
        again = row("running", attempts=2, interruptions=1, steps=frozenset({"s0"}))
        assert "x s0 was done 2 times" in checker.check_killed(told, seen(x=again, acts={"x s0": 2}))[0]

    def test_a_step_that_another_one_has_followed_was_recorded(self) -> None:
        checker = Checker()
        told = history(*submitted())
        assert not checker.check_killed(told, seen(x=row("running"), acts=DONE_ACTS))
        again = row("running", attempts=2, interruptions=1)
        assert not checker.check_killed(told, seen(x=again, acts={**DONE_ACTS, "x s1": 2}))
        assert "x s0 was done 2 times" in checker.check_killed(told, seen(x=again, acts={"x s0": 2, "x s1": 2}))[0]

    def test_a_step_that_was_not_recorded_may_be_done_again_once_for_each_attempt(self) -> None:
        checker = Checker()
        told = history(*submitted())
        assert not checker.check_killed(told, seen(x=row("running"), acts={"x s0": 1}))
        again = row("running", attempts=2, interruptions=1)
        assert not checker.check_killed(told, seen(x=again, acts={"x s0": 2}))
        assert "done 3 times in 2 attempts" in checker.check_killed(told, seen(x=again, acts={"x s0": 3}))[0]

    def test_a_recorded_step_that_is_lost(self) -> None:
        checker = Checker()
        told = history(*submitted())
        assert not checker.check_killed(told, seen(x=row("running", steps=frozenset({"s0"})), acts={"x s0": 1}))
        assert "lost the steps ['s0']" in checker.check_killed(told, seen(x=row("running"), acts={"x s0": 1}))[0]

    def test_an_act_after_the_end(self) -> None:
        checker = Checker()
        told = history(*submitted())
        assert not checker.check_killed(told, seen(x=row(), acts=DONE_ACTS))
        found = checker.check_killed(told, seen(x=row(attempts=2), acts={**DONE_ACTS, "x s1": 2}))
        assert "x s1 was done 2 times, 1 of them when x had it recorded" in found[0]

    @pytest.mark.parametrize("method", ["once", "undone"])
    def test_what_must_not_run_twice_and_has(self, method) -> None:
        act = {"once": "x once", "undone": "x begin"}[method]
        now = seen(x=row("running", method, attempts=2, interruptions=1), acts={act: 2})
        assert "was done 2 times in 2 attempts" in Checker().check_killed(history(*submitted(method=method)), now)[0]

    def test_a_cast_that_ran_twice(self) -> None:
        told = history(("cast", "c", BEGIN, {}), ("cast", "c", DONE, {}))
        assert not Checker().check_killed(told, seen(acts={"c once": 1}))
        assert Checker().check_killed(told, seen(acts={"c once": 2})) == ["the cast c ran 2 times"]

    @pytest.mark.parametrize("state", ["queued", "running", "waiting"])
    def test_one_that_hangs(self, state) -> None:
        found = Checker().check_settled(history(*submitted()), seen(x=row(state)))
        assert found == [f"operation x (resumed) hangs: it is {state}"]

    @pytest.mark.parametrize(
        ("now", "acts", "text"),
        [
            (row(result="y"), DONE_ACTS, "has the result 'y'"),
            (row(), {"x s0": 1}, "succeeded without s1"),
            (row("cancelled"), {}, "cancelled by nobody"),
            (row("failed", error="Busy"), {}, "failed with Busy"),
            (row("failed", error="OperationInterrupted", interruptions=1), {}, "is to be continued, and has failed"),
            (row("failed", "undone", error="OperationInterrupted"), {"x begin": 1}, "cut off and not undone"),
            (row(method="undone"), {"x begin": 1, "x end": 1, "x undo": 1}, "succeeded and was undone"),
            (row(method="once"), {}, "succeeded without once"),
        ],
    )
    def test_a_wrong_end(self, now, acts, text) -> None:
        assert text in Checker().check_settled(history(*submitted(method=now.method)), seen(x=now, acts=acts))[0]

    @pytest.mark.parametrize(
        ("now", "acts"),
        [
            (row("failed", "once", error="OperationInterrupted", interruptions=1), {"x once": 1}),
            (row("failed", "undone", error="OperationInterrupted", interruptions=1), {"x begin": 1, "x undo": 1}),
            (row("failed", error="OperationInterrupted", interruptions=5, attempts=5), {"x s0": 5}),
        ],
    )
    def test_an_end_that_a_restart_may_bring(self, now, acts) -> None:
        assert not Checker().check_settled(history(*submitted(method=now.method)), seen(x=now, acts=acts))


class TestValues:
    @pytest.mark.parametrize(("value", "text"), [(0, "is 0: 2 was"), (1, "is 1: 2 was"), (4, "is 4: 2 was")])
    def test_a_value_that_was_lost_or_that_nobody_has_set(self, value, text) -> None:
        told = history(
            *(("set", "k", phase, {"value": 2}) for phase in (BEGIN, DONE)), ("set", "k", BEGIN, {"value": 3})
        )
        assert text in Checker().check_killed(told, seen(values={"k": value} if value else {}))[0]
        for either in (2, 3):
            assert not Checker().check_killed(told, seen(values={"k": either}))

    def test_a_write_of_two_that_was_done_by_half(self) -> None:
        told = history(("pair", "p", BEGIN, {"value": 1}))
        assert "by half" in Checker().check_killed(told, seen(values={"p.left": 1}))[0]
        assert not Checker().check_killed(told, seen(values={"p.left": 1, "p.right": 1}))
        assert not Checker().check_killed(told, seen())


class TestVolumes:
    MADE = (volume("v", BEGIN, (512, False)), volume("v", DONE, (512, False)))

    @pytest.mark.parametrize("kind", ["volume", "snapshot"])
    def test_one_that_was_created_and_is_lost(self, kind) -> None:
        told = history(*((kind, *rest) for _, *rest in self.MADE))
        there = {f"{kind}s": {"v": ("available", 512)}, f"{kind}_files": {"v": 512}}
        assert not Checker().check_killed(told, seen(**there))
        for gone in (f"{kind}s", f"{kind}_files"):
            assert "was acknowledged and is lost" in Checker().check_killed(told, seen(**{**there, gone: {}}))[0]

    def test_one_that_was_deleted_and_is_there(self) -> None:
        told = history(*self.MADE, volume("v", BEGIN, None), volume("v", DONE, None))
        assert not Checker().check_killed(told, seen())
        assert "was deleted, and there is" in Checker().check_killed(told, seen(volume_files={"v": 512}))[0]

    def test_one_that_was_extended_and_is_not(self) -> None:
        told = history(*self.MADE, volume("v", BEGIN, (1024, False)), volume("v", DONE, (1024, False)))
        now = seen(volumes={"v": ("available", 512)}, volume_files={"v": 512})
        assert "has 1024 bytes; its record" in Checker().check_killed(told, now)[0]

    def test_one_that_is_under_way_may_be_either(self) -> None:
        told = history(*self.MADE, volume("v", BEGIN, (1024, False)))
        for size in (512, 1024):
            now = seen(volumes={"v": ("available", size)}, volume_files={"v": size})
            assert not Checker().check_killed(told, now)
            assert not Checker().check_settled(told, now)
        other = seen(volumes={"v": ("available", 600)}, volume_files={"v": 600})
        assert "can only be [1024, 512]" in Checker().check_settled(told, other)[0]

    def test_one_that_was_refused_is_as_before(self) -> None:
        told = history(*self.MADE, volume("v", BEGIN, None), volume("v", REFUSED, None))
        assert "is lost" in Checker().check_killed(told, seen())[0]

    @pytest.mark.parametrize("state", ["creating", "extending", "deleting", "error"])
    def test_one_that_hangs(self, state) -> None:
        told = history(volume("v", BEGIN, (512, False)), volume("v", UNKNOWN, (512, False)))
        now = seen(volumes={"v": (state, 512)}, volume_files={"v": 512})
        assert Checker().check_settled(told, now) == [f"volume v hangs: it is {state}"]
        assert not Checker().is_settled(told, now)

    def test_a_file_without_a_record_and_a_record_without_a_file(self) -> None:
        told = history(volume("v", BEGIN, (512, False)))
        assert Checker().check_settled(told, seen(volume_files={"v": 512})) == ["the file of volume v has no record"]
        found = Checker().check_settled(told, seen(volumes={"v": ("available", 512)}))
        assert found == ["volume v has a record of 512 bytes, and a file of None"]

    def test_a_deletion_on_a_full_disk_may_leave_a_record_that_says_so(self) -> None:
        told = history(*self.MADE, volume("v", BEGIN, None), volume("v", UNKNOWN, None))
        now = seen(volumes={"v": ("error", 512)})
        assert not Checker(was_full=True).check_settled(told, now)
        assert "hangs: it is error" in Checker().check_settled(told, now)[0]
        assert Checker(was_full=True).check_settled(history(*self.MADE), now)
        assert Checker(was_full=True).check_settled(told, seen(volumes={"v": ("error", 512)}, volume_files={"v": 512}))

    def test_an_unfinished_file(self) -> None:
        assert Checker().check_settled(History(), seen(partials={".v"})) == ["the unfinished file .v was left"]

    def test_the_content(self, tmp_path) -> None:
        file = tmp_path / "v"
        file.write_bytes(b"image" + bytes(3))
        assert content_is_right(file, b"image", True)
        assert not content_is_right(file, b"image", False)
        assert not content_is_right(file, b"imagx", True)


class TestEvents:
    def test_a_hole_that_is_not_shown(self) -> None:
        told = history(*(("event", "r", DONE, {"item": [number, 7, 2, "a"]}) for number in (1, 3)))
        assert Checker().check_killed(told, seen()) == ["r got event 3 after 1, and no gap"]

    def test_holes_are_found_across_checks(self) -> None:
        checker = Checker()
        told = history(("event", "r", DONE, {"item": [1, 7, 2, "a"]}))
        assert not checker.check_killed(told, seen())
        told.add("event", "r", DONE, {"item": [3, 7, 2, "a"]})
        assert checker.check_killed(told, seen()) == ["r got event 3 after 1, and no gap"]

    def test_an_event_that_was_seen_and_is_not_in_the_journal(self) -> None:
        told = history(("event", "r", DONE, {"item": [1, 7, 1, "a"]}))
        assert not Checker().check_killed(told, seen(events={1: (7, "a")}, last_event=1))
        assert "the journal has (8, 'b')" in Checker().check_killed(told, seen(events={1: (8, "b")}, last_event=1))[0]
        assert "the journal has None" in Checker().check_killed(told, seen())[0]

    def test_an_event_that_changes(self) -> None:
        checker = Checker()
        assert not checker.check_killed(History(), seen(events={1: (7, "a")}, last_event=1))
        assert "was (7, 'a'), and is" in checker.check_killed(History(), seen(events={1: (7, "b")}, last_event=1))[0]

    def test_a_hole_in_the_journal(self) -> None:
        found = Checker().check_killed(History(), seen(events={1: (7, "a"), 3: (7, "b")}, last_event=4))
        assert found == ["the journal ends with 4, and lacks [2, 4]"]


class TestPeriodicRuns:
    def test_two_at_once(self) -> None:
        ticks = [("1", "begin"), ("1", "begin")]
        assert "overlap in 1" in Checker().check_killed(History(), seen(ticks=ticks))[0]

    def test_an_end_without_a_begin(self) -> None:
        assert "where none had begun" in Checker().check_killed(History(), seen(ticks=[("1", "end")]))[0]

    def test_one_that_was_cut_off_by_a_kill(self) -> None:
        ticks = [("1", "begin"), ("2", "begin"), ("2", "end")]
        assert not Checker().check_killed(History(), seen(ticks=ticks, recorded_ticks=2))

    def test_more_than_there_were(self) -> None:
        found = Checker().check_killed(History(), seen(ticks=[("1", "begin")], recorded_ticks=2))
        assert found == ["2 runs of the periodic task are recorded, and 1 were begun"]


def test_a_history_is_read_as_far_as_its_lines_are_whole(tmp_path) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    journal.write("set", "k", BEGIN, value=1)
    journal.close()
    reader = HistoryReader(tmp_path)
    assert reader.read().values == {"k": (0, 1)}
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps(["set", "k", DONE, {"value": 1}]))
        file.flush()
        assert reader.read().values == {"k": (0, 1)}
        file.write("\n")
        file.flush()
        assert reader.read().values == {"k": (1, 1)}
