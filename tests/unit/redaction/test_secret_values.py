"""Secret values are found in every spelling, and nothing else is touched."""

import base64
import json
import logging
import shlex
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.redaction import SECRETS, SecretValues, spellings_of

# private: _arguments, _ended_arguments, _values: that the memory is bounded shows in nothing else

SECRET = "tok-AbCd991/x+y"


@pytest.fixture
def time():
    return [1000.0]


@pytest.fixture
def secrets(time):
    return SecretValues(monotonic=lambda: time[0])


def holding(*known):
    secrets = SecretValues()
    for value in known:
        secrets.add(value)
    return secrets


SPELLINGS = {
    "plain": lambda text: text,
    "quote": quote,
    "quote all": lambda text: quote(text, safe=""),
    "quote_plus": quote_plus,
    "lower escapes": lambda text: quote(text, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "json": lambda text: json.dumps(text)[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "shell": shlex.quote,
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
}


@pytest.mark.parametrize("how", SPELLINGS)
def test_every_spelling_is_found(how):
    spelt = SPELLINGS[how](SECRET)
    redacted = holding(SECRET).redact(f"before {spelt} after")
    assert spelt not in redacted
    assert "***" in redacted
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")


@given(st.text(min_size=6, max_size=40), st.binary(max_size=9), st.binary(max_size=9), st.booleans())
def test_nothing_of_a_secret_is_left_in_base64_wherever_it_begins(secret, before, after, urlsafe):
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    raw = secret.encode()
    text = encode(before + raw + after).decode()
    redacted = holding(secret).redact(f"Authorization: Basic {text}")
    assert text not in redacted
    # What is left does not hold the secret when it is decoded: whole groups of it are gone.
    core = encode(bytes(len(before) % 3) + raw).decode()[2:-4]
    assert not core or core not in redacted or len(core) < 6


@given(st.text(min_size=6, max_size=30).filter(lambda text: "*" not in text), st.text(max_size=50))
def test_a_secret_is_in_no_text_that_was_redacted(secret, other):
    redacted = holding(secret).redact(f"{other}{secret}{other}")
    assert secret not in redacted.replace("***", "\0")


def test_without_secrets_nothing_is_touched():
    assert SecretValues().redact("password=hunter2") == "password=hunter2"
    assert not SecretValues().has_secret_in_bytes(b"anything")


def test_a_short_value_is_hidden_by_its_name_alone():
    assert spellings_of("abcde") == ()
    assert holding("abcde").redact("abcdefgh") == "abcdefgh"


def test_longer_values_go_first_so_that_no_rest_of_one_is_left():
    assert holding("hunter2", "hunter2-and-more").redact("hunter2-and-more") == "***"


def test_a_value_that_was_rotated_is_looked_for_until_it_cannot_turn_up_any_more(secrets, time):
    secrets.add("old-value")
    secrets.begin_update()
    secrets.add("new-value")
    assert secrets.redact("old-value new-value") == "*** ***"
    secrets.commit_update()
    assert secrets.redact("old-value new-value") == "*** ***"
    time[0] += 25 * 3600
    secrets.begin_update()
    secrets.add("new-value")
    secrets.commit_update()
    assert secrets.redact("old-value new-value") == "old-value ***"


def test_a_reload_that_fails_forgets_nothing(secrets, time):
    secrets.add("old-value")
    for _ in range(3):
        secrets.begin_update()
        time[0] += 25 * 3600
    assert secrets.redact("old-value") == "***"


def test_the_number_of_rotated_values_is_bounded(secrets):
    for number in range(600):
        secrets.begin_update()
        secrets.add(f"value-number-{number}.")
        secrets.commit_update()
    assert len(secrets._values) <= 257 + 1
    assert secrets.redact("value-number-599. value-number-0.") == "*** value-number-0."


def test_arguments_are_looked_for_while_their_request_runs_and_for_a_while_after(secrets, time):
    secrets.add_arguments(["an-argument"])
    secrets.add_arguments(["an-argument"])
    secrets.remove_arguments(["an-argument"])
    assert secrets.redact("an-argument") == "***"
    secrets.remove_arguments(["an-argument"])
    assert secrets.redact("an-argument") == "***"
    assert secrets.redact("an-argument", arguments=False) == "an-argument"
    time[0] += 61
    secrets.remove_arguments([])
    assert secrets.redact("an-argument") == "an-argument"


def test_the_arguments_of_many_requests_take_bounded_memory(secrets):
    for number in range(5000):
        secrets.add_arguments([f"argument-{number}"])
        secrets.remove_arguments([f"argument-{number}"])
    assert len(secrets._ended_arguments) <= 2000
    assert not secrets._arguments


def test_no_secret_is_cut_in_two():
    text = "x" * 8 + "s3cret" + "y" * 8
    assert holding("s3cret").redact_and_cut(text, 10) == "xxxxxxxx... (14 more characters)"
    assert holding("s3cret").redact_and_cut(text, 14) == "xxxxxxxxs3cret... (8 more characters)"
    assert holding("secret", "retract").redact_and_cut("a secretract", 9) == "a ... (10 more characters)"
    assert SecretValues().redact_and_cut(text, 10, extra_values=["s3cret"]) == "xxxxxxxx... (14 more characters)"
    encoded = base64.b64encode(b"user:" + SECRET.encode()).decode()
    for most in range(1, len(encoded)):
        shown, _ = holding(SECRET).redact_and_cut(encoded, most).split("...")
        assert len(shown) <= 8 or len(shown) >= len(encoded) - 4


def test_structures_are_redacted_at_any_depth():
    assert holding(SECRET).redact_deep({SECRET: [1, None, {"deep": (SECRET, 2.5)}]}) == {
        "***": [1, None, {"deep": ["***", 2.5]}]
    }
    assert holding(SECRET).has_secret_in_bytes(b"\x81\xa1a\xaf" + SECRET.encode())


@pytest.fixture
def known():
    """The process knows one secret; it forgets it after the test, see `tests/conftest.py`."""
    SECRETS.add(SECRET)


def test_describe_cuts_after_it_has_redacted(known):
    from ostler.errors import DriverError, error_line

    for error in (DriverError(f"no {SECRET}", hint=f"see {SECRET}"), ValueError(f"401 for {SECRET}")):
        assert SECRET not in error_line(error)
    for before in range(6080, 6100):  # where a long text is cut before it is looked through
        shrinks = (SECRET * 400)[:before] + SECRET + "y" * 10_000
        assert SECRET[:6] not in error_line(ValueError(shrinks)).replace(SECRET, "")
    long = "x" * 1995 + SECRET + "y" * 10_000
    assert SECRET[:5] not in error_line(ValueError(long))


@pytest.mark.parametrize("formatter", ["TextFormatter", "JsonFormatter"])
def test_logs_of_any_logger_are_redacted_message_fields_and_traceback(known, formatter):
    from ostler.log import formats

    try:
        raise ValueError(f"login with {SECRET}")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("requests.fake", 40, "f.py", 1, "GET https://svc:%s@store/", (SECRET,), info)
    record.url = f"https://svc:{SECRET}@store/"
    line = getattr(formats, formatter)().format(record)
    assert SECRET not in line
    assert line.count("***") >= 3


def test_events_are_redacted(known):
    from ostler.messaging.events.event_publisher import has_secrets, redact_payload

    packed = msgspec.msgpack.encode({"pw": SECRET, "n": 1})
    assert has_secrets(packed, None)
    assert redact_payload({"pw": SECRET, "n": 1}, None) == {"pw": "***", "n": 1}
    assert not has_secrets(msgspec.msgpack.encode({"n": 1}), None)


def test_states_drivers_and_what_systemd_is_told_are_redacted(known):
    from ostler.clock import FakeClock
    from ostler.service.state_tracker import StateTracker
    from ostler.systemd.notify import encode_datagram
    from ostler.types import ServiceState

    states = StateTracker(FakeClock(), lambda: None)
    states.enter(ServiceState.UP)
    states.set_problem("driver d", f"login with {SECRET} failed")
    assert states.why == "login with *** failed"
    states.enter(ServiceState.FAILED, f"no {SECRET}")
    assert states.why == "no ***"
    assert SECRET.encode() not in encode_datagram({"STATUS": f"could not start: {SECRET}"})


def test_tokens_are_found_everywhere_also_where_no_other_secret_is_known():
    token = "ostk_" + "aB3-_" * 8 + "xyz"
    secrets = SecretValues()
    assert secrets.redact(f"Bearer {token}!") == "Bearer ***!"
    assert secrets.redact_deep({"a": [f"x {token}", {token: token.encode()}]}) == {"a": ["x ***", {"***": b"***"}]}
    assert secrets.has_secret_in_bytes(msgspec.msgpack.encode({"a": token}))
    assert not secrets.has_secret_in_bytes(b"nothing of the kind")
    for place in range(40, 100):
        cut = secrets.redact_and_cut(f"{'.' * place}{token} and so on", 80)
        assert "ostk_" not in secrets.redact(cut)
    assert holding("abcdef").redact_and_cut(f"{'.' * 40}{token}", 80).startswith("." * 40 + "...")
