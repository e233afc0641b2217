from __future__ import annotations

import pytest

from ostler.errors import StoreError
from ostler.store.records.position_records import EventPosition, PositionRecords, _connection

# private: _connection: that it is used inside of the store only shows in no record

POSITION = EventPosition("sink", "on_created", "node2", "volume", 7, 3)


async def test_positions_are_stored_for_each_handler_and_host(store):
    records = PositionRecords(store, "node1")
    await records.save([POSITION, POSITION._replace(handler="on_deleted", sequence=9)])
    await records.save([POSITION._replace(sequence=8)])
    assert await records.load("sink", "on_created") == [POSITION._replace(sequence=8)]
    assert await records.load("sink", "other") == []
    assert await PositionRecords(store, "node2").load("sink", "on_created") == []


def test_positions_are_used_inside_the_store_only():
    with pytest.raises(StoreError):
        _connection()
