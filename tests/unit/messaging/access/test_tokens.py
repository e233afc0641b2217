"""The tokens in memory: whose a secret is, until when, and what is told of its use."""

import threading

import pytest

from ostler.clock import FakeClock
from ostler.errors import NotPermitted, StoreUnavailable
from ostler.messaging.access.tokens import Token, TokenTable, digest_of, new_secret
from ostler.redaction import redact
from ostler.types import Role


def token(name, secret, **fields):
    fields = {"role": Role.OPERATOR, "created_at": 0.0, "made_by": "uid 0", **fields}
    return Token(name=name, digest=digest_of(secret), **fields)


@pytest.fixture
def clock():
    return FakeClock()


def test_two_secrets_are_never_the_same_and_are_redacted_in_every_text():
    found = {new_secret() for _ in range(100)}
    assert len(found) == 100
    secret = found.pop()
    assert len(secret) == 48
    text = redact(f"GET / with Bearer {secret}, and again {secret}.")
    assert secret[5:20] not in text
    assert text.startswith("GET / with Bearer ***")


def test_a_secret_gives_its_name_and_role(clock):
    table = TokenTable(clock)
    found = token("ci", "one")
    table.add(found)
    assert table.authenticate("one") == found
    assert table.role_of("ci", found.proof) is Role.OPERATOR
    with pytest.raises(NotPermitted, match="not known here"):
        table.authenticate("two")


def test_a_revoked_token_is_refused(clock):
    table = TokenTable(clock)
    table.add(token("ci", "one"))
    table.remove("ci")
    assert table.role_of("ci", token("ci", "one").proof) is None
    with pytest.raises(NotPermitted, match="was revoked"):
        table.authenticate("one")


def test_who_had_a_revoked_token_has_nothing_of_another_one_with_its_name(clock):
    table = TokenTable(clock)
    old, new = token("ci", "one", role=Role.VIEWER), token("ci", "two", role=Role.ADMIN)
    table.add(old)
    table.remove("ci")
    table.add(new)
    assert table.role_of("ci", old.proof) is None
    assert table.role_of("ci", new.proof) is Role.ADMIN


def test_an_expired_token_is_refused_by_the_wall_clock(clock):
    table = TokenTable(clock)
    found = token("ci", "one", expires_at=clock.wall() + 60)
    table.add(found)
    assert table.next_expiry() == clock.wall() + 60
    clock.set_wall(clock.wall() + 60)
    assert table.role_of("ci", found.proof) is None
    assert table.next_expiry() is None
    with pytest.raises(NotPermitted, match="the token ci has expired"):
        table.authenticate("one")
    clock.set_wall(clock.wall() - 30)  # a clock that is put back lets it in again: this is documented
    assert table.authenticate("one") == found


def test_the_table_is_read_once_and_again_after_it_could_not_be(clock):
    reads = []

    def load():
        reads.append(1)
        if len(reads) == 1:
            raise StoreUnavailable("the database is locked")
        return [token("ci", "one")]

    table = TokenTable(clock, load)
    assert table.role_of("ci", token("ci", "one").proof) is None, "nobody came with it yet"
    with pytest.raises(StoreUnavailable):
        table.authenticate("one")
    assert table.authenticate("one").name == "ci"
    assert table.authenticate("one").name == "ci"
    assert len(reads) == 2


def test_what_is_revoked_while_another_thread_reads_the_table_stays_revoked(clock):
    reading, go_on = threading.Event(), threading.Event()

    def load():
        reading.set()
        assert go_on.wait(10)
        return [token("ci", "one")]

    table = TokenTable(clock, load)
    slow = threading.Thread(target=table.tokens)
    slow.start()
    assert reading.wait(10)
    table.fill([token("ci", "one")])  # what the loop does, which must not wait for the database
    table.remove("ci")
    go_on.set()
    slow.join(10)
    assert table.tokens() == []


def test_a_table_that_was_not_read_cannot_be_changed(clock):
    table = TokenTable(clock, lambda: [token("ci", "one")])
    with pytest.raises(RuntimeError, match="not been read"):
        table.add(token("other", "two"))
    assert table.authenticate("one").name == "ci"


def test_what_was_read_before_a_change_does_not_undo_it(clock):
    table = TokenTable(clock)
    old = [token("ci", "one")]
    table.fill(old)
    table.remove("ci")
    table.fill(old)
    assert table.tokens() == []


def test_a_use_is_told_once_a_minute(clock):
    told = []
    table = TokenTable(clock, on_used=lambda name, at: told.append((name, at)))
    table.add(token("ci", "one"))
    for _ in range(3):
        table.authenticate("one")
    began = clock.wall()
    clock.set_wall(began + 59)
    table.authenticate("one")
    assert told == [("ci", began)]
    clock.set_wall(began + 60)
    table.authenticate("one")
    clock.set_wall(began - 1000)  # a clock that was put back must not stop it for as long
    table.authenticate("one")
    assert told == [("ci", began), ("ci", began + 60), ("ci", began - 1000)]
