import io
import logging

import pytest

from ostler.log.handlers import SafeStreamHandler


class Full(io.StringIO):
    """A stream on a disk that is full as long as `full` is set."""

    full = False

    def write(self, text):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.mark.failure_mode("Machine", "no space on the log")
def test_no_space_on_the_log(record):
    stream = Full()
    handler = SafeStreamHandler(stream)
    handler.handle(record("one"))
    stream.full = True
    for _ in range(3):
        handler.handle(record("lost"))
    stream.full = False
    handler.handle(record("two"))
    assert handler.lost_count == 3
    one, lost, two = stream.getvalue().splitlines()
    assert (one, two) == ("one", "two")
    assert lost.startswith("3 lines of the log could not be written, from 2")
    assert lost.endswith("(No space left on device)")


def test_a_closed_stream_harms_nobody(record):
    stream = io.StringIO()
    handler = SafeStreamHandler(stream)
    stream.close()
    handler.handle(record())
    assert handler.lost_count == 1


def test_a_reader_that_went_away_harms_nobody(record):
    class Gone(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    handler = SafeStreamHandler(Gone())
    handler.handle(record())
    assert handler.lost_count == 1


def test_a_formatter_that_fails_harms_nobody(record, capsys):
    class Broken(logging.Formatter):
        def format(self, record):
            raise LookupError

    handler = SafeStreamHandler(io.StringIO())
    handler.setFormatter(Broken())
    handler.handle(record())
    assert handler.lost_count == 1
    assert capsys.readouterr().err == ""


def test_a_real_full_device_harms_nobody(record):
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as stream:
        handler = SafeStreamHandler(stream)
        handler.handle(record())
        handler.writer.flush(10)
        assert handler.lost_count == 1
