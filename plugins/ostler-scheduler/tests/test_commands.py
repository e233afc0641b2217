from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ostler.cli import invocation
from ostler_scheduler.api_types import Candidate, Explanation, Judgement
from ostler_scheduler.commands import app

GIB = 2**30
JUDGED = [
    Judgement(host="node1", backend="poor", free=20 * GIB, weights={"free_space": 0.0}),
    Judgement(host="node1", backend="small", free=2 * GIB, dropped_by="capacity", reason="10GiB asked for, 2GiB free"),
    Judgement(host="node2", backend="fast", free=100 * GIB, weights={"free_space": 1.0}, total=1.0, chosen=True),
]
EXPLAINED = Explanation(topic="volume", size=10 * GIB, why="the best of 2 candidates left", candidates=JUDGED)


class FakeClient:
    def __init__(self, answer):
        self.answer = answer
        self.asked = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def on(self, *, type):  # noqa: A002 - the option's name
        self.type = type
        return self

    def call(self, topic, method, /, **arguments):
        self.asked = (topic, method, arguments, self.type)
        return self.answer


@pytest.fixture
def run():
    def invoke(answer, *arguments, as_json=False):
        client = FakeClient(answer)
        with invocation.use_invocation(invocation.Invocation(json=as_json, connect=lambda *_: client)):
            result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout, client.asked

    return invoke


def test_explain_shows_the_chosen_one_first_and_the_dropped_ones_last(run):
    shown, asked = run(EXPLAINED, "explain", "volume", "--size", "10GiB")
    assert shown.splitlines() == [
        "fast on node2 is chosen: the best of 2 candidates left",
        "",
        "HOST   BACKEND    FREE  WEIGHTS          TOTAL  VERDICT",
        "node2  fast     100GiB  free_space 1.00   1.00  chosen",
        "node1  poor      20GiB  free_space 0.00   0.00  -",
        "node1  small      2GiB  -                    -  dropped by capacity: 10GiB asked for, 2GiB free",
    ]
    assert asked[:2] == ("scheduler", "explain")
    assert asked[2] == {"topic": "volume", "size": "10GiB", "features": [], "on_host": "", "exclude": []}
    assert asked[3] is Explanation


def test_explain_passes_on_features_host_and_what_is_excluded(run):
    _, asked = run(
        EXPLAINED, "explain", "volume", "--feature", "snapshot", "--feature", "kind=ssd", "--host", "node2",
        "--exclude", "node1/poor",
    )  # fmt: skip
    assert asked[2]["features"] == ["snapshot", "kind=ssd"]
    assert (asked[2]["on_host"], asked[2]["exclude"]) == ("node2", ["node1/poor"])


def test_explain_without_a_candidate_says_why_and_shows_no_table(run):
    nothing = Explanation(topic="volume", size=0, why="no backend: nobody has reported", candidates=[])
    shown, _ = run(nothing, "explain", "volume")
    assert shown == "no backend: nobody has reported\n"


def test_explain_as_json_is_one_document(run):
    shown, _ = run(EXPLAINED, "explain", "volume", as_json=True)
    assert json.loads(shown)["candidates"][2]["chosen"] is True


def test_candidates_are_listed_with_room_age_and_what_is_not_well(run):
    known = [
        Candidate(
            topic="volume", host="node1", backend="fast", age=5, promised=GIB,
            facts={"total_bytes": 200 * GIB, "free_bytes": 100 * GIB, "features": ["clone", "snapshot"]},
        ),
        Candidate(topic="volume", host="node2", backend="odd", enabled=False, facts={"free_bytes": "plenty"}),
        Candidate(topic="volume", host="node3", backend="old", age=300, gone="its service is down"),
    ]  # fmt: skip
    shown, asked = run(known, "candidates", "volume")
    assert shown.splitlines() == [
        "TOPIC   HOST   BACKEND   TOTAL   FREE  PROMISED  FEATURES         REPORTED  NOTE",
        "volume  node1  fast     200GiB  99GiB      1GiB  clone, snapshot    5s ago  -",
        "volume  node2  odd           -      ?        0B  -                  0s ago  disabled",
        "volume  node3  old           -      -        0B  -                5min ago  its service is down",
    ]
    assert asked == ("scheduler", "candidates", {"topic": "volume"}, list[Candidate])


def test_no_candidates_in_a_pipe_are_a_bare_header(run):
    shown, _ = run([], "candidates")
    assert len(shown.splitlines()) == 1
