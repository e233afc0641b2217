from __future__ import annotations

import pytest

from ostler_volume.volume_states import (
    SNAPSHOT_TRANSITIONS,
    STATE_HINTS,
    STATE_VERBS,
    VOLUME_TRANSITIONS,
    SnapshotState,
    VolumeState,
)


def test_every_state_has_its_moves_and_its_hint():
    assert set(VOLUME_TRANSITIONS) == set(VolumeState)
    assert set(SNAPSHOT_TRANSITIONS) == set(SnapshotState)
    assert set(STATE_HINTS) == {str(state) for state in VolumeState}


@pytest.mark.parametrize("state", [state for state in VolumeState if state.endswith("ing")])
def test_what_is_being_worked_on_can_always_end_in_error(state):
    assert VolumeState.ERROR in VOLUME_TRANSITIONS[state]


def test_a_request_begins_from_available_in_use_or_error_only():
    for state, moves in VOLUME_TRANSITIONS.items():
        begun = {str(move) for move in moves} & set(STATE_VERBS)
        allowed = {
            VolumeState.AVAILABLE: {"attaching", "extending", "deleting"},
            VolumeState.IN_USE: {"detaching"},
            VolumeState.ERROR: {"deleting"},
        }
        assert begun == allowed.get(state, set())
