"""The tokens of a daemon: stored, limited in number, with the time of their last use, and ended when they expire."""

import asyncio
import threading

import pytest

from ostler.clock import FakeClock
from ostler.daemon.connectivity.gateway_host import GatewayHost
from ostler.errors import Busy, Conflict, NotFound, NotPermitted
from ostler.store import Store
from ostler.types import Role
from support.async_tests import loop_fixture

DAY = 86400.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(tmp_path, clock):
    opened = Store.open(tmp_path / "ostler.db", clock=clock, synchronous="OFF")
    yield opened
    opened.close(1)


@pytest.fixture
def ended():
    return []


@pytest.fixture
def make_tokens(store, clock, ended):
    def make(**limits):
        def note_end():
            ended.append(clock.wall())

        loop = asyncio.get_running_loop()
        return GatewayHost(store, clock, "node1", loop, lambda tokens: tokens, note_end, **limits)

    return make


@loop_fixture
async def tokens(make_tokens):
    made = make_tokens()
    yield made
    await made.close()


async def test_a_token_is_stored_and_its_secret_is_not(tokens, make_tokens, store):
    token, secret = await tokens.create("ci", Role.OPERATOR, DAY, "uid 0")
    later = make_tokens()
    assert await later.all_tokens() == [token]
    assert later.tokens.authenticate(secret) == token
    await later.close()
    copy = store.open_copy()
    assert secret.encode() not in copy.read()
    copy.close()


async def test_a_name_is_taken_once(tokens):
    await tokens.create("ci", Role.VIEWER, 0, "uid 0")
    with pytest.raises(Conflict, match="there is a token ci already"):
        await tokens.create("ci", Role.ADMIN, 0, "uid 0")
    await tokens.revoke("ci")
    await tokens.create("ci", Role.ADMIN, 0, "uid 0")


async def test_a_revoked_token_ends_what_it_has_in_progress(tokens, make_tokens, ended):
    await tokens.create("ci", Role.VIEWER, 0, "uid 0")
    await tokens.revoke("ci")
    assert len(ended) == 1
    assert await make_tokens().all_tokens() == []
    with pytest.raises(NotFound, match="token ci not found"):
        await tokens.revoke("ci")


@pytest.fixture
def slow_store(store):
    """A writer that does nothing before the test says so."""
    entered, go_on = threading.Event(), threading.Event()

    def hold():
        entered.set()
        assert go_on.wait(10)

    holding = threading.Thread(target=store.write, args=(hold,), kwargs={"label": "hold"})

    def start():
        holding.start()
        assert entered.wait(10)

    yield start, go_on.set
    go_on.set()
    holding.join(10)


async def test_a_revocation_whose_caller_has_left_is_completed(tokens, slow_store, ended):
    _, secret = await tokens.create("ci", Role.VIEWER, 0, "uid 0")
    hold, go_on = slow_store
    hold()
    revoking = asyncio.ensure_future(tokens.revoke("ci"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    revoking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await revoking
    tokens.tokens.authenticate(secret)
    go_on()
    while not ended:
        await asyncio.sleep(0.001)
    with pytest.raises(NotPermitted, match="was revoked"):
        tokens.tokens.authenticate(secret)
    assert await tokens.create("ci", Role.VIEWER, 0, "uid 0")


@pytest.mark.virtual_time
async def test_what_a_token_has_ends_also_when_another_is_made_just_then(tokens, clock, ended):
    await tokens.create("ci", Role.VIEWER, 90.0, "uid 0")
    clock.set_wall(clock.wall() + 91)
    await tokens.create("other", Role.VIEWER, 0, "uid 0")
    assert len(ended) == 1


async def test_there_are_no_more_tokens_than_the_limit(make_tokens):
    tokens = make_tokens(max_tokens=3)
    for number in range(3):
        await tokens.create(f"t{number}", Role.VIEWER, 0, "uid 0")
    with pytest.raises(Busy, match="3 tokens, which is the limit"):
        await tokens.create("t3", Role.VIEWER, 0, "uid 0")


async def test_an_expired_token_is_listed_for_a_month(tokens, clock):
    await tokens.create("old", Role.VIEWER, DAY, "uid 0")
    clock.set_wall(clock.wall() + 30 * DAY)
    await tokens.create("new", Role.VIEWER, 0, "uid 0")
    assert [token.name for token in await tokens.all_tokens()] == ["new", "old"]
    clock.set_wall(clock.wall() + 2 * DAY)
    await tokens.create("newer", Role.VIEWER, 0, "uid 0")
    assert [token.name for token in await tokens.all_tokens()] == ["new", "newer"]


async def test_the_last_use_is_written(tokens, make_tokens, clock):
    _, secret = await tokens.create("ci", Role.VIEWER, 0, "uid 0")
    clock.set_wall(clock.wall() + 100)
    tokens.tokens.authenticate(secret)
    await tokens.close()
    later = make_tokens()
    assert [token.last_used_at for token in await later.all_tokens()] == [clock.wall()]


@pytest.mark.virtual_time
async def test_a_token_that_expires_ends_what_it_has_in_progress(tokens, clock, ended):
    await tokens.create("long", Role.VIEWER, 10 * DAY, "uid 0")
    await tokens.create("ci", Role.VIEWER, 90.0, "uid 0")
    began = clock.wall()
    await asyncio.sleep(61)
    assert ended == []
    clock.set_wall(began + 91)  # the wall clock was set: it is looked at again within a minute
    await asyncio.sleep(60)
    assert ended == [began + 91]
    await asyncio.sleep(600)
    assert len(ended) == 1
