"""Inside `store.read` and `store.write` peewee does what its documentation says."""

import asyncio
import contextlib
import logging
import threading

import peewee
import pytest
from peewee import JOIN, SQL, fn

from ostler.errors import StoreError
from ostler.store import Record
from ostler.store.session import current_session


class Author(Record):
    name = peewee.TextField(unique=True)
    born = peewee.IntegerField(null=True)

    class Meta:
        table_name = "lib_authors"


class Book(Record):
    author = peewee.ForeignKeyField(Author, backref="books", on_delete="CASCADE")
    title = peewee.TextField()
    pages = peewee.IntegerField(default=0)

    class Meta:
        table_name = "lib_books"


def database():
    return current_session().database


@pytest.fixture
def library(store):
    def make():
        database().create_tables([Author, Book])
        for name, born in (("ada", 1815), ("bob", None)):
            author = Author.create(name=name, born=born)
            for number in range(3):
                Book.create(author=author, title=f"{name} {number}", pages=100 * number)

    store.write(make)
    return store


def names(store):
    return store.read(lambda: [row.name for row in Author.select().order_by(Author.name)])


# ---------------------------------------------------------------- models and queries


def test_create_get_save_and_delete(library):
    def work():
        eve = Author.create(name="eve")
        assert eve.id > 0
        eve.born = 1900
        assert eve.save() == 1
        assert Author.get(Author.name == "eve").born == 1900
        assert Author.get_by_id(eve.id).name == Author[eve.id].name == "eve"
        assert Author.get_or_none(Author.name == "nobody") is None
        with pytest.raises(Author.DoesNotExist):
            Author.get(Author.name == "nobody")
        assert eve.delete_instance() == 1

    library.write(work)
    assert names(library) == ["ada", "bob"]


def test_get_or_create_says_whether_it_has_created(library):
    def work():
        first, created = Author.get_or_create(name="eve", defaults={"born": 1})
        again, created_again = Author.get_or_create(name="eve", defaults={"born": 2})
        return created, created_again, first == again, again.born

    assert library.write(work) == (True, False, True, 1)


def test_bulk_create_bulk_update_and_insert_many(library):
    def work():
        Author.bulk_create([Author(name=f"n{number:03}") for number in range(500)], batch_size=50)
        authors = list(Author.select().where(Author.name ** "n%"))  # with SQLite it sets no ids
        for author in authors:
            author.born = 7
        Author.bulk_update(authors, fields=[Author.born], batch_size=100)
        assert Author.select().where(Author.born == 7).count() == 500
        assert Author.insert_many([{"name": f"m{number}"} for number in range(10)]).execute()
        assert Author.update(born=8).where(Author.born == 7).execute() == 500
        assert Author.delete().where((Author.born == 8) | (Author.name ** "m%")).execute() == 510

    library.write(work)
    assert names(library) == ["ada", "bob"]


def test_upsert_and_returning(library):
    def work():
        query = Author.insert(name="ada", born=1).on_conflict(
            conflict_target=[Author.name], update={Author.born: SQL("excluded.born")}
        )
        query.execute()
        rows = Author.update(born=Author.born + 1).where(Author.name == "ada").returning(Author.name, Author.born)
        Author.insert(name="bob", born=5).on_conflict_ignore().execute()
        assert Author.get(name="bob").born is None
        return [(row.name, row.born) for row in rows.execute()]

    assert library.write(work) == [("ada", 2)]


def test_joins_functions_groups_and_subqueries(library):
    def work():
        query = (
            Author.select(Author.name, fn.COUNT(Book.id).alias("count"), fn.SUM(Book.pages).alias("pages"))
            .join(Book, JOIN.LEFT_OUTER)
            .group_by(Author)
            .having(fn.COUNT(Book.id) > 1)
            .order_by(Author.name.desc())
        )
        thick = Book.select(Book.author).where(Book.pages >= 200)
        return (
            [(row.name, row.count, row.pages) for row in query],
            Author.select().where(Author.id.in_(thick)).count(),
            [book.title for book in Author.get(name="ada").books.order_by(Book.id)],
            Book.select(fn.MAX(Book.pages)).scalar(),
            len(peewee.prefetch(Author.select(), Book.select())),
        )

    expected = [("bob", 3, 300), ("ada", 3, 300)], 2, ["ada 0", "ada 1", "ada 2"], 200, 2
    assert library.read(work) == expected
    assert library.write(work) == expected


def test_iterators_dicts_tuples_and_namedtuples(library):
    def work():
        query = Author.select(Author.name).order_by(Author.name)
        assert [row.name for row in query.clone().iterator()] == ["ada", "bob"]
        assert list(query.clone().dicts()) == [{"name": "ada"}, {"name": "bob"}]
        assert list(query.clone().tuples().iterator()) == [("ada",), ("bob",)]
        assert [row.name for row in query.clone().namedtuples()] == ["ada", "bob"]
        assert list(peewee.chunked(range(5), 2)) == [[0, 1], [2, 3], [4]]
        assert query.exists()

    library.read(work)


def test_foreign_keys_hold_and_cascade(library):
    def orphan():
        Book.insert(author=999, title="orphan").execute()

    with pytest.raises(peewee.IntegrityError, match="FOREIGN KEY"):
        library.write(orphan)
    library.write(lambda: Author.delete().where(Author.name == "ada").execute())
    assert library.read(lambda: Book.select().count()) == 3
    library.write(lambda: Author.get(name="bob").delete_instance(recursive=True))
    assert library.read(lambda: Book.select().count()) == 0


def test_errors_are_those_of_peewee(library):
    with pytest.raises(peewee.IntegrityError) as caught:
        library.write(lambda: Author.create(name="ada"))
    assert isinstance(caught.value, peewee.PeeweeException)
    with pytest.raises(peewee.OperationalError, match="no such table"):
        library.write(lambda: database().execute_sql("SELECT * FROM nowhere"))
    with pytest.raises(peewee.ProgrammingError):
        library.write(lambda: database().execute_sql("SELECT ?", ()))


def test_queries_are_logged_for_whoever_asks_peewee_for_it(library, caplog):
    caplog.set_level(logging.DEBUG, logger="peewee")
    library.read(lambda: Author.select().where(Author.name == "ada").first())
    assert any("lib_authors" in record.getMessage() for record in caplog.records if record.name == "peewee")


# ---------------------------------------------------------------- transactions


def test_an_atomic_that_fails_is_rolled_back_alone(library):
    def work():
        with database().atomic():
            Author.create(name="outer")
            with contextlib.suppress(peewee.IntegrityError), database().atomic():
                Author.create(name="inner")
                Author.create(name="outer")
            with database().atomic():
                Author.create(name="third")

    library.write(work)
    assert names(library) == ["ada", "bob", "outer", "third"]


def test_an_atomic_can_be_rolled_back_by_hand(library):
    def work():
        with database().atomic() as inner:
            Author.create(name="dropped")
            inner.rollback()
            Author.create(name="kept")

    library.write(work)
    assert names(library) == ["ada", "bob", "kept"]


def test_atomic_is_a_decorator_as_well(library):
    def work():
        @database().atomic()
        def add(name):
            return Author.create(name=name)

        add("eve")
        with pytest.raises(peewee.IntegrityError):
            add("eve")

    library.write(work)
    assert names(library) == ["ada", "bob", "eve"]


def test_savepoint_and_transaction_inside_a_write(library):
    def work():
        with database().savepoint() as savepoint:
            Author.create(name="dropped")
            savepoint.rollback()
        with database().transaction():  # the outer one is that of the store, as peewee nests them
            Author.create(name="kept")

    library.write(work)
    assert names(library) == ["ada", "bob", "kept"]


def test_a_write_that_raises_is_rolled_back_with_what_was_committed_inside(library):
    def work():
        with database().atomic():
            Author.create(name="eve")
        raise LookupError

    with pytest.raises(LookupError):
        library.write(work)
    assert names(library) == ["ada", "bob"]


@pytest.mark.parametrize("how", ["commit", "rollback", "begin"])
def test_what_would_end_the_transaction_of_others_is_refused(library, how):
    def work():
        Author.create(name="eve")
        getattr(database(), how)()

    with pytest.raises(StoreError, match=rf"{how} was called inside store\.read, store\.write.*database\.atomic"):
        library.write(work)
    assert names(library) == ["ada", "bob"]
    library.write(lambda: Author.create(name="later"))
    assert names(library) == ["ada", "bob", "later"]


def test_committing_a_transaction_by_hand_is_refused(library):
    def work():
        with database().transaction() as transaction:
            Author.create(name="eve")
            transaction.commit()

    with pytest.raises(StoreError, match=r"database\.atomic"):
        library.write(work)
    assert names(library) == ["ada", "bob"]


def test_after_commit_is_called_when_it_is_on_disk_and_not_for_what_failed(library):
    seen = []

    def work(name):
        Author.create(name=name)
        database().after_commit(lambda: seen.append((name, library.read(lambda: Author.get(name=name).name))))

    library.write(lambda: work("eve"))
    assert seen == [("eve", "eve")]

    def broken():
        work("mallory")
        raise LookupError

    with pytest.raises(LookupError):
        library.write(broken)
    library.write(lambda: work("later"))
    assert [name for name, _ in seen] == ["eve", "later"]


def test_what_fails_in_after_commit_is_logged_and_its_write_stays(library, caplog):
    def work():
        Author.create(name="eve")
        database().after_commit(lambda: 1 / 0)

    library.write(work, label="with a hook")
    assert names(library) == ["ada", "bob", "eve"]
    assert "a function that was passed to after_commit in the write with a hook failed" in caplog.text


# ---------------------------------------------------------------- where it may be used


def test_outside_of_read_and_write_a_model_says_what_to_do(library):
    for use in (
        lambda: Author.create(name="x"),
        lambda: list(Author.select()),
        lambda: Author.get(name="ada"),
        lambda: Author.delete().execute(),
        Author.table_exists,
        lambda: Author(name="x").save(),
        lambda: Author.bulk_create([Author(name="x")]),
    ):
        with pytest.raises(StoreError, match=r"outside of store\.read and store\.write.*pass"):
            use()


def test_a_query_may_be_built_anywhere_and_run_inside(library):
    query = Author.select().where(Author.name == "ada")
    assert "lib_authors" in query.sql()[0]
    assert [row.name for row in library.read(lambda: list(query))] == ["ada"]


def test_a_query_that_is_finished_outside_says_what_to_do(library):
    query = library.read(Author.select)
    with pytest.raises(StoreError, match="finish queries there"):
        list(query)


def test_a_foreign_key_that_is_followed_outside_says_what_to_do(library):
    book = library.read(lambda: Book.select().first())
    with pytest.raises(StoreError, match=r"outside of store\.read"):
        book.author  # noqa: B018 - this asks the database
    assert library.read(lambda: Book.select(Book, Author).join(Author).first()).author.name == "ada"


def test_a_thread_that_a_write_starts_is_outside_of_it(library):
    found = []

    def elsewhere():
        try:
            Author.create(name="x")
        except StoreError as error:
            found.append(str(error))

    def work():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    library.write(work)
    assert "outside of store.read and store.write" in found[0]


def test_a_read_that_writes_says_what_to_do(library):
    for use in (lambda: Author.create(name="x"), lambda: database().drop_tables([Book])):
        with pytest.raises(StoreError, match=r"use store\.write instead"):
            library.read(use)


async def test_on_the_loop_a_model_is_used_through_awrite_and_aread(library):
    await library.awrite(lambda: Author.create(name="eve"))
    assert await library.aread(lambda: Author.select().count()) == 3
    with pytest.raises(StoreError, match=r"outside of store\.read"):
        Author.select().count()
    results = await asyncio.gather(
        *(library.awrite(lambda n=n: Author.create(name=n)) for n in ("x", "ada", "y")), return_exceptions=True
    )
    assert [type(result) for result in results] == [Author, peewee.IntegrityError, Author]
