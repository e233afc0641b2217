import pytest

from ostler.log import MESSAGE_IDS, message_id


def test_ids_are_unique_and_as_the_journal_wants_them():
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(len(found) == 32 and int(found, 16) and found == found.lower() for found in MESSAGE_IDS.values())


def test_an_unknown_message_is_a_slip_of_the_programmer():
    assert message_id("service-up") == {"event": "service-up"}
    with pytest.raises(KeyError):
        message_id("service-upp")
