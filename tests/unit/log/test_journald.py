import array
import io
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ostler.log import MESSAGE_IDS, adapter, detail, fields, is_stderr_journal, message_id
from ostler.log.journald import SEND_TIMEOUT, JournalHandler, encode_fields, journal_field_name, journal_fields
from ostler.log.output_targets import StreamTarget
from support.descriptors import open_descriptors


class FakeJournal:
    """A socket that takes datagrams as journald does, descriptors included."""

    def __init__(self, path):
        self.path = str(path)
        self.open()

    def open(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)

    def close(self):
        self.socket.close()
        Path(self.path).unlink()

    def receive(self):
        descriptors = array.array("i")
        data, rights, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(4))
        if rights:
            descriptors.frombytes(rights[0][2])
            with os.fdopen(descriptors[0], "rb") as file:
                file.seek(0)
                data = file.read()
        return decode(data)


def decode(data):
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[9 + size :]
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal():
    # Not tmp_path: the name of a socket may not be longer than 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        fake = FakeJournal(Path(folder, "socket"))
        yield fake
        fake.socket.close()


@pytest.fixture
def handler(journal):
    made = JournalHandler(journal.path)
    yield made
    made.close()


@pytest.fixture
def logger(plain_logger, handler):
    plain_logger.addHandler(handler)
    return plain_logger


def small_datagrams(handler):
    """How large a datagram may be differs from machine to machine."""
    handler.target.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


def test_a_line_arrives_with_its_fields(journal, handler, logger):
    with fields(request_id="r1"):
        adapter(logger, service="volume", driver="local").warning(
            "%s is full", "disk", extra=message_id("driver-failed")
        )
    found = journal.receive()
    assert found["MESSAGE"] == "disk is full"
    assert found["PRIORITY"] == "4"
    assert found["SYSLOG_IDENTIFIER"] == "ostler"
    assert found["MESSAGE_ID"] == MESSAGE_IDS["driver-failed"]
    assert (found["OSTLER_SERVICE"], found["OSTLER_DRIVER"], found["OSTLER_REQUEST_ID"]) == ("volume", "local", "r1")
    assert found["OSTLER_LOGGER"] == "ostler.volume"
    assert found["CODE_FILE"] == __file__
    assert found["CODE_FUNC"] == "test_a_line_arrives_with_its_fields"
    assert found["CODE_LINE"].isdigit()


def test_secrets_do_not_arrive(journal, handler, logger):
    logger.info("token=abc", extra={"password": "hunter2"})
    found = journal.receive()
    assert found["MESSAGE"] == "token=***"
    assert found["OSTLER_PASSWORD"] == "***"


def test_tracebacks_of_unexpected_errors_arrive(journal, handler, logger):
    try:
        raise ValueError("x")
    except ValueError:
        logger.exception("it broke")
    message = journal.receive()["MESSAGE"]
    assert message.startswith("it broke\n    Traceback")
    assert message.endswith("ValueError: x")


def test_a_value_of_several_lines_has_its_length():
    assert encode_fields({"A": "b", "C": "d\ne"}) == b"A=b\nC\n\x03\0\0\0\0\0\0\0d\ne\n"
    assert decode(encode_fields({"A": "b=c", "C": "d\ne\n", "D": ""})) == {"A": "b=c", "C": "d\ne\n", "D": ""}


def test_text_that_is_no_utf_8_is_sent_all_the_same():
    assert encode_fields({"A": "x\udcff"}) == b"A=x\\udcff\n"


@pytest.mark.parametrize(
    ("name", "journals"),
    [
        ("service", "OSTLER_SERVICE"),
        ("request-id", "OSTLER_REQUEST_ID"),
        ("größe", "OSTLER_GR__E"),
        ("a=b\n", "OSTLER_A_B_"),
    ],
)
def test_names_of_fields_are_made_to_fit(name, journals):
    assert journal_field_name(name) == journals
    assert len(journal_field_name("x" * 100)) == 64


def test_a_line_too_large_for_a_datagram_goes_as_a_sealed_file(journal, handler, logger):
    small_datagrams(handler)
    logger.info("dump", extra=detail("x" * 1_000_000))
    assert journal.receive()["MESSAGE"] == "dump\n    " + "x" * 1_000_000
    assert handler.lost_count == 0


def test_a_journal_that_is_away_is_counted_and_found_again(journal, handler, logger):
    journal.close()
    for _ in range(3):
        logger.info("lost")
    assert handler.writer.flush(10)
    assert "No such file or directory" in handler.problem()
    journal.open()
    logger.info("there")
    assert journal.receive()["MESSAGE"].startswith("3 lines of the log could not be written, from ")
    assert journal.receive()["MESSAGE"] == "there"
    assert handler.writer.flush(10)
    assert not handler.problem()


@pytest.fixture
def other_way(journal, plain_logger):
    """A handler that has standard error as well, the text that came there, and its logger."""
    stream = io.StringIO()
    handler = JournalHandler(journal.path, fallback=StreamTarget(stream))
    plain_logger.addHandler(handler)
    return handler, stream, plain_logger


def test_without_journald_lines_go_to_standard_error_until_it_is_there(journal, other_way):
    handler, stream, logger = other_way
    journal.close()
    logger.info("first")
    logger.info("second, token=abc")
    assert handler.writer.flush(10)
    why, first, second = stream.getvalue().splitlines()
    assert why.startswith("WARNING  ostler.log: cannot write to journald since 2")
    assert first.endswith("INFO     ostler.volume: first")
    assert second.endswith("INFO     ostler.volume: second, token=***")
    assert handler.lost_count == 0
    journal.open()
    logger.info("third")
    assert journal.receive()["MESSAGE"].startswith("writing to journald again; 2 lines went")
    assert journal.receive()["MESSAGE"] == "third"
    assert handler.writer.flush(10)
    assert not handler.problem()


def test_a_journal_that_hangs_holds_nobody_up_and_lines_go_to_standard_error(journal, other_way):
    handler, stream, logger = other_way
    begun = time.monotonic()
    for _ in range(300):
        logger.info("x" * 10_000)
    assert time.monotonic() - begun < 20 * SEND_TIMEOUT  # each line would wait for it otherwise
    while not handler.problem():
        handler.writer.flush(10)
    assert "it does not read" in handler.problem()
    assert "xxx" in stream.getvalue()


def test_a_handler_that_somebody_closed_still_writes(journal, handler, logger):
    handler.close()
    logger.info("x")
    assert journal.receive()["MESSAGE"] == "x"


def test_descriptors_do_not_leak(journal, handler, logger):
    small_datagrams(handler)
    before = open_descriptors()
    for _ in range(5):
        logger.info("x" * 600_000)
        journal.receive()
    assert open_descriptors() == before


def test_the_journal_is_known_by_device_and_inode(tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        assert is_stderr_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, stream)
        assert not is_stderr_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}, stream)
        assert not is_stderr_journal({"JOURNAL_STREAM": "nonsense"}, stream)
        assert not is_stderr_journal({}, stream)
    assert not is_stderr_journal({"JOURNAL_STREAM": "1:2"}, stream)
    assert not is_stderr_journal({}, sys.stderr)


def test_no_text_of_a_record_adds_a_field_or_forges_a_line(record):
    evil = "a\nPRIORITY=0\nMESSAGE=forged\x1b[2J\u202e"
    made = record("%s", evil, given=evil, logger=evil, priority=evil, **{"MESSAGE\n": evil})
    made.name = evil
    values = journal_fields(made, "ostler")
    found = decode(encode_fields(values))
    assert found == values
    assert found["PRIORITY"] == "6"
    assert found["MESSAGE"] == found["OSTLER_LOGGER"] == "a\\nPRIORITY=0\\nMESSAGE=forged\\x1b[2J\\u202e"
    assert found["OSTLER_GIVEN"] == "a\nPRIORITY=0\nMESSAGE=forged\\x1b[2J\\u202e"


def test_a_traceback_is_set_off_in_its_message_too(record):
    try:
        raise ValueError("a\nERROR    root: forged")
    except ValueError:
        message = journal_fields(record("it broke", exc_info=sys.exc_info()), "ostler")["MESSAGE"]
    assert message.startswith("it broke\n    Traceback")
    assert all(line.startswith("    ") for line in message.split("\n")[1:])
