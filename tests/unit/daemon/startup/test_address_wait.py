import tempfile

import pytest

from ostler.config import load_text, validate
from ostler.daemon.startup.address_wait import wait_for_addresses
from ostler.errors import Conflict, MessagingError
from ostler.messaging.tcp.bind import ADDRESS_NOT_READY, check_address
from ostler.messaging.tcp.curve import generate_keys
from ostler.testing.virtual_time import run_virtual, virtual_clock

ADDRESS = "tcp://192.0.2.77:17890"


def options(rpc=ADDRESS, wait=120):
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(generate_keys().secret)
        file.flush()
        text = f"[network]\nrpc = '{rpc}'\naddress_wait = '{wait}s'\nsecret_key = {{file = '{file.name}'}}\n"
        return validate(load_text(text), {}, {})


class Machine:
    """Has its address after some tries."""

    def __init__(self, tries, error=None):
        self.tries = tries
        self.asked = 0
        self.error = error or MessagingError("not here", reason=ADDRESS_NOT_READY)

    def __call__(self, address):
        self.asked += 1
        if self.asked <= self.tries:
            raise self.error


def waited(machine, configuration=None):
    told = []

    async def main():
        clock = virtual_clock()
        began = clock.monotonic()
        try:
            await wait_for_addresses(configuration or options(), clock, told.append, machine)
        finally:
            told.append(round(clock.monotonic() - began))

    return main, told


@pytest.mark.failure_mode("Machine", "an address that is not there yet")
def test_an_address_that_comes_thirty_seconds_after_the_start_is_waited_for(caplog):
    main, told = waited(Machine(30))
    run_virtual(main())
    assert told[0] == f"the address {ADDRESS}"
    assert told[-2:] == ["", 30]
    assert len(caplog.records) == 1


def test_an_address_that_never_comes_is_given_up_after_the_time_that_is_configured():
    main, told = waited(Machine(10**6), options(wait=20))
    with pytest.raises(MessagingError, match="not here"):
        run_virtual(main())
    assert told[-1] == 20


def test_what_does_not_come_by_itself_is_not_waited_for():
    main, told = waited(Machine(10**6, Conflict("somebody else listens there")))
    run_virtual(main())
    assert told == ["", 0]


@pytest.mark.parametrize("address", [ADDRESS, "tcp://[2001:db8::77]:17890", "tcp://no-such-host.invalid:17890"])
def test_an_address_of_another_machine_and_an_unknown_name_may_come_later(address):
    with pytest.raises(MessagingError) as caught:
        check_address(address)
    assert caught.value.reason == ADDRESS_NOT_READY


def test_an_address_of_this_machine_is_there():
    # Passing is the assertion: it does not raise.
    check_address("tcp://127.0.0.1:0")
