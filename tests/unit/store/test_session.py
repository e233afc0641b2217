import threading

import peewee
import pytest

from ostler.errors import StoreError
from ostler.store import Record, Store
from ostler.store.session import current_session


class Lamp(Record):
    name = peewee.TextField()
    colours = peewee.JSONField(default=list)

    class Meta:
        table_name = "test_lamps"


@pytest.fixture
def lamps(store):
    store.write(Lamp.create_table)
    return store


def test_a_record_outside_of_a_session_is_refused_with_the_way_out(lamps):
    with pytest.raises(StoreError, match=r"outside of store\.read and store\.write.*`store\.read`"):
        list(Lamp.select())
    with pytest.raises(StoreError, match="outside"):
        Lamp.create(name="a")
    with pytest.raises(StoreError, match="outside"), Lamp._meta.database.atomic():
        pass


def test_a_query_may_be_built_outside_and_run_inside(lamps):
    query = Lamp.select().where(Lamp.name == "a")
    assert lamps.read(lambda: list(query)) == []


def test_an_unfinished_query_cannot_leave_its_session(lamps):
    left = lamps.read(Lamp.select)
    with pytest.raises(StoreError, match="finish queries"):
        list(left)


def test_fields_that_ask_for_the_database_early_work(lamps):
    lamps.write(lambda: Lamp.create(name="a", colours=["red", {"x": 1}]))
    assert lamps.read(lambda: Lamp.get().colours) == ["red", {"x": 1}]


def test_two_stores_in_one_process_do_not_mix(lamps, tmp_path, clock):
    other = Store.open(tmp_path / "other" / "ostler.db", clock=clock)
    other.write(Lamp.create_table)

    def both():
        Lamp.create(name="here")
        other.write(lambda: Lamp.create(name="there"))
        Lamp.create(name="here as well")

    lamps.write(both)
    assert lamps.read(lambda: [lamp.name for lamp in Lamp.select()]) == ["here", "here as well"]
    assert other.read(lambda: [lamp.name for lamp in Lamp.select()]) == ["there"]
    other.close()


def test_a_session_is_its_threads_alone(store):
    def read():
        seen = []
        thread = threading.Thread(target=lambda: seen.append(current_session()))
        thread.start()
        thread.join()
        return current_session() is not None, seen

    assert store.read(read) == (True, [None])
    assert current_session() is None
