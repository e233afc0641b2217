from ostler.clock import FakeClock
from ostler.messaging.observers.audit_log import MIN_AGE, InFlightAudit


class Call:
    def __init__(self, at, kept=True):
        self.arrived_at, self.kept, self.is_recorded = at, kept, False


class Bench:
    def __init__(self):
        self.clock = FakeClock()
        self.calls = []
        self.begun = InFlightAudit(self.clock, lambda call: call if call.kept else None)

    def since(self, moment):
        return [call for call in reversed(self.calls) if call.arrived_at > moment]

    def call(self, **facts):
        self.calls.append(made := Call(self.clock.monotonic(), **facts))
        return made


def test_a_request_is_written_down_once_when_it_has_been_under_way_for_a_moment():
    b = Bench()
    b.clock.advance(1)
    first = b.call()
    assert b.begun.new_entries(b.since) == {}
    b.clock.advance(MIN_AGE + 0.01)
    second = b.call()
    assert list(b.begun.new_entries(b.since).values()) == [first]
    assert b.begun.new_entries(b.since) == {}
    b.clock.advance(MIN_AGE + 0.01)
    assert list(b.begun.new_entries(b.since).values()) == [second]


def test_what_is_not_kept_or_has_ended_meanwhile_is_not_written_down():
    b = Bench()
    b.clock.advance(1)
    b.call(kept=False)
    b.call().is_recorded = True
    b.clock.advance(1)
    assert b.begun.new_entries(b.since) == {}


def test_the_key_of_what_has_ended_is_to_be_removed_once_or_again_when_that_failed():
    b = Bench()
    b.clock.advance(1)
    call = b.call()
    b.clock.advance(1)
    (key,) = b.begun.new_entries(b.since)
    assert key.startswith(b.begun.key_prefix)
    b.begun.on_call_done(call)
    b.begun.on_call_done(call)
    b.begun.on_call_done(Call(0))
    assert b.begun.pop_ended() == [key]
    assert b.begun.pop_ended() == []
    b.begun.requeue_ended([key])
    assert b.begun.pop_ended() == [key]


def test_each_process_has_keys_of_its_own():
    assert Bench().begun.key_prefix != Bench().begun.key_prefix
