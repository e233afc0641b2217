import threading

import pytest

from ostler.errors import StoreUnavailable
from ostler.store.reader_pool import MAX_IDLE_CONNECTIONS, ReaderPool
from ostler.store.sqlite_files.sqlite_connection import connect


@pytest.fixture
def made():
    return []


@pytest.fixture
def readers(store, path, made):
    def make():
        made.append(connect(path, read_only=True))
        return made[-1]

    found = ReaderPool(make)
    yield found
    found.close()
    assert all(database.is_closed() for database in made)


def test_a_connection_is_lent_again(readers, made):
    for _ in range(10):
        with readers.borrow():
            pass
    assert len(made) == 1


def test_threads_that_come_and_go_leave_nothing_open(readers, made):
    barrier = threading.Barrier(MAX_IDLE_CONNECTIONS * 2)

    def read():
        with readers.borrow():
            barrier.wait(10)

    threads = [threading.Thread(target=read) for _ in range(MAX_IDLE_CONNECTIONS * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not database.is_closed() for database in made) == MAX_IDLE_CONNECTIONS


def test_a_connection_under_which_something_failed_is_not_lent_again(readers, made):
    with pytest.raises(LookupError), readers.borrow():
        raise LookupError
    with readers.borrow():
        pass
    assert len(made) == 2


def test_one_that_comes_back_after_the_close_is_closed(readers, made):
    with readers.borrow():
        readers.close()
    assert made[0].is_closed()
    with pytest.raises(StoreUnavailable, match="closed"), readers.borrow():
        pass
