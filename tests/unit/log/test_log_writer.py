import gc
import os
import signal
import threading
import time

import pytest

from ostler.log import log_writer as module
from ostler.log.handlers import SafeStreamHandler
from ostler.log.log_writer import LogLine, LogWriter
from ostler.log.output_targets import DescriptorTarget

# private: _lock: held as by another thread at the moment of a fork


class Gate:
    """A target that writes nothing until it is opened."""

    is_direct = False

    def __init__(self):
        self.open = threading.Event()
        self.lines = []

    def send(self, line):
        self.open.wait(30)
        self.lines.append(line.data)

    def problem(self):
        return ""


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


def writer_for(gate, **limits):
    made = LogWriter(**limits)
    made.make_line = lambda record: LogLine(gate, record.getMessage().encode())
    return made


@pytest.fixture
def writer(gate):
    return writer_for(gate)


@pytest.mark.failure_mode("Machine", "output that is closed, full or not read")
def test_nobody_reads_the_log(record):
    """Case 07: whoever logs is never held up by a pipe that nobody reads, and is told what was lost."""
    reading, writing = os.pipe()
    handler = SafeStreamHandler(DescriptorTarget(writing))
    os.close(writing)
    begun = time.monotonic()
    for _ in range(module.MAX_QUEUE_LINES + 1000):
        handler.handle(record("x" * 100))
    assert time.monotonic() - begun < 10
    assert handler.lost_count > 0
    assert not handler.writer.flush(10)
    assert handler.writer.stalled_time() > 0
    data = b""
    while b"(they came faster than they could be written)\n" not in data:
        data = data[-200:] + os.read(reading, 65536)
    assert b" lines of the log could not be written, from 2" in data
    os.close(reading)


def test_the_queue_is_bounded_in_bytes_and_takes_one_line_of_any_size(gate, writer):
    writer.enqueue(LogLine(gate, b"x" * (2 * module.MAX_QUEUE_BYTES)))
    assert writer.queued_count == 1
    writer.enqueue(LogLine(gate, b"y"))
    assert (writer.queued_count, writer.losses.total) == (1, 1)
    gate.open.set()
    assert writer.flush(10)
    assert [line[:1] for line in gate.lines] == [b"x", b"1"]


def test_a_loss_is_told_where_it_happened_and_once(gate):
    writer = writer_for(gate, max_lines=2)
    for number in range(5):
        writer.enqueue(LogLine(gate, b"%d" % number))
    gate.open.set()
    assert writer.flush(10)
    writer.enqueue(LogLine(gate, b"after"))
    assert writer.flush(10)
    assert gate.lines[:2] == [b"0", b"1"]
    assert gate.lines[2].startswith(b"3 lines of the log could not be written")
    assert gate.lines[3:] == [b"after"]
    assert writer.is_loss_reported


def test_a_reader_that_went_away_and_a_device_that_fails_are_counted():
    reading, writing = os.pipe()
    target = DescriptorTarget(writing)
    os.close(writing)
    os.close(reading)
    writer = LogWriter()
    writer.enqueue(LogLine(target, b"x\n"))
    assert writer.flush(10)
    assert (writer.losses.total, writer.losses.last_reason) == (1, "Broken pipe")


def test_a_descriptor_of_its_own_survives_those_who_close_the_stream(tmp_path, record):
    path = tmp_path / "log"
    stream = path.open("w")
    handler = SafeStreamHandler(stream)
    stream.close()
    handler.handle(record("still here"))
    assert handler.writer.flush(10)
    assert path.read_text() == "still here\n"
    assert str(path) in handler.destination()


def test_a_pipe_that_somebody_made_non_blocking_gets_every_line_whole(record):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = SafeStreamHandler(DescriptorTarget(writing))
    for _ in range(3):
        handler.handle(record("x" * 100_000))
    got = b""
    while got.count(b"\n") < 3:
        got += os.read(reading, 65536)
    assert [len(line) for line in got.splitlines()] == [100_000] * 3
    os.close(reading)
    os.close(writing)


def test_a_forked_child_writes_its_lines_itself_though_a_thread_held_the_lock(tmp_path, record):
    with (tmp_path / "log").open("w") as stream:
        handler = SafeStreamHandler(stream)
    handler.handle(record("parent"))
    assert handler.writer.flush(10)
    held, done = threading.Event(), threading.Event()

    def hold():
        with handler.writer._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        handler.handle(record("child"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    done.set()
    thread.join()
    assert (tmp_path / "log").read_text() == "parent\nchild\n"


def test_who_logs_inside_of_the_queue_does_not_wait_for_itself(gate, writer):
    """A finaliser or a signal handler may log at any moment, also while its own thread holds the lock."""
    with writer._lock:
        writer.enqueue(LogLine(gate, b"x"))
    assert writer.queued_count == 1


def test_a_writer_that_nobody_has_leaves_no_thread_and_loses_no_line(gate):
    writer, earlier = writer_for(gate), set(threading.enumerate())
    for number in range(3):
        writer.enqueue(LogLine(gate, b"%d" % number))
    (thread,) = set(threading.enumerate()) - earlier
    del writer
    gc.collect()
    gate.open.set()
    thread.join(10)
    assert not thread.is_alive()
    assert gate.lines == [b"0", b"1", b"2"]


@pytest.mark.failure_mode("Machine", "no memory for a thread")
def test_without_a_thread_the_lines_are_written_when_they_are_flushed(gate, monkeypatch):
    def fail(_thread):
        raise RuntimeError("can't start new thread")

    writer = writer_for(gate)
    gate.open.set()
    with monkeypatch.context() as patched:
        # The limit of tasks is that of the user, and would hold for the whole run of the tests.
        patched.setattr(threading.Thread, "start", fail)
        writer.enqueue(LogLine(gate, b"one"))
        writer.enqueue(LogLine(gate, b"two"))
        assert gate.lines == []
        assert writer.flush(10)
    assert (gate.lines, writer.queued_count) == ([b"one", b"two"], 0)
    writer.enqueue(LogLine(gate, b"three"))
    assert writer.flush(10)
    assert gate.lines[-1] == b"three"
