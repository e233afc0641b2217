from __future__ import annotations

import pytest

from ostler_volume.states import HINTS, SNAPSHOT_MOVES, VERBS, VOLUME_MOVES, SnapshotState, VolumeState


def test_every_state_has_its_moves_and_its_hint():
    assert set(VOLUME_MOVES) == set(VolumeState)
    assert set(SNAPSHOT_MOVES) == set(SnapshotState)
    assert set(HINTS) == {str(state) for state in VolumeState}


@pytest.mark.parametrize("state", [state for state in VolumeState if state.endswith("ing")])
def test_what_is_being_worked_on_can_always_end_in_error(state):
    assert VolumeState.ERROR in VOLUME_MOVES[state]


def test_a_request_begins_from_available_in_use_or_error_only():
    for state, moves in VOLUME_MOVES.items():
        begun = {str(move) for move in moves} & set(VERBS)
        allowed = {
            VolumeState.AVAILABLE: {"attaching", "extending", "deleting"},
            VolumeState.IN_USE: {"detaching"},
            VolumeState.ERROR: {"deleting"},
        }
        assert begun == allowed.get(state, set())
