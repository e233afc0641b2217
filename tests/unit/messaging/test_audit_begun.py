from ostler.clock import FakeClock
from ostler.messaging.audit_begun import SOON, BegunCalls


class Call:
    def __init__(self, at, kept=True):
        self.arrived_at, self.kept, self.over = at, kept, False


class Bench:
    def __init__(self):
        self.clock = FakeClock()
        self.calls = []
        self.begun = BegunCalls(self.clock, self.since, lambda call: call if call.kept else None)

    def since(self, moment):
        return [call for call in reversed(self.calls) if call.arrived_at > moment]

    def call(self, **facts):
        self.calls.append(made := Call(self.clock.monotonic(), **facts))
        return made


def test_a_request_is_written_down_once_when_it_has_been_under_way_for_a_moment():
    b = Bench()
    b.clock.advance(1)
    first = b.call()
    assert b.begun.look() == {}
    b.clock.advance(SOON + 0.01)
    second = b.call()
    assert list(b.begun.look().values()) == [first]
    assert b.begun.look() == {}
    b.clock.advance(SOON + 0.01)
    assert list(b.begun.look().values()) == [second]


def test_what_is_not_kept_or_has_ended_meanwhile_is_not_written_down():
    b = Bench()
    b.clock.advance(1)
    b.call(kept=False)
    b.call().over = True
    b.clock.advance(1)
    assert b.begun.look() == {}


def test_the_key_of_what_has_ended_is_to_be_removed_once_or_again_when_that_failed():
    b = Bench()
    b.clock.advance(1)
    call = b.call()
    b.clock.advance(1)
    (key,) = b.begun.look()
    assert key.startswith(b.begun.run)
    b.begun.ended(call)
    b.begun.ended(call)
    b.begun.ended(Call(0))
    assert b.begun.take_ended() == [key]
    assert b.begun.take_ended() == []
    b.begun.put_back([key])
    assert b.begun.take_ended() == [key]


def test_each_process_has_keys_of_its_own():
    assert Bench().begun.run != Bench().begun.run
