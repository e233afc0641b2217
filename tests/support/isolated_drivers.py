"""Drivers that harm the process they run in, for the tests of those that run in one of their own."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import subprocess
import sys
import threading
from abc import abstractmethod
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ostler import Context, Driver, DriverEnvironment, DriverOptions, Field, NotFound, Secret, feature


class ProbeError(NotFound):
    """An error of the plugin's own."""


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class ProbeLock:
    """Holds something, and cannot be copied."""


class Sight(NamedTuple):
    path: Path
    colours: frozenset[Colour]
    sizes: Mapping[str, int]


class ProbeDriver(Driver):
    """The contract: what it declares, an implementation does not have to repeat."""

    @abstractmethod
    def look(self, sight: Sight, *more: Sight, again: tuple[int, ...] = ()) -> tuple[Sight, ...]: ...

    @feature("dance")
    def dance(self) -> None: ...


class ProbeOptions(DriverOptions):
    word: Secret = Field("", help="A secret")
    shade: str = Field("dark", help="An option that a reload changes in place")
    begin: str = Field("well", help="How `initialise` goes")


class Probe(ProbeDriver):
    """Does to its process what a driver should not do."""

    Options = ProbeOptions

    def __init__(self, environment: DriverEnvironment) -> None:
        super().__init__(environment)
        self.serial = "P-1"
        self.state = ["not plain"]

    def initialise(self) -> None:
        if self.options.begin == "exit":
            os._exit(7)
        if self.options.begin == "hang":
            threading.Event().wait()
        if self.options.begin == "fail":
            raise OSError("no device")
        self.log.info("ready", extra={"pid": os.getpid()})

    def look(self, sight, *more, again=()):
        assert isinstance(sight.path, Path)
        assert isinstance(again, tuple)
        return (sight, *more)

    def add(self, a: int, b: int) -> int:
        return a + b

    def echo(self, data: bytes) -> bytes:
        return data

    def pid(self) -> int:
        return os.getpid()

    def segfault(self) -> None:
        ctypes.string_at(0)

    def exit(self, status: int) -> None:
        os._exit(status)

    def system_exit(self) -> None:
        raise SystemExit(4)

    def hold_interpreter(self, seconds: int) -> None:
        ctypes.PyDLL(None).sleep(seconds)

    def take_time(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def spin(self, size: int) -> int:
        """Compute in C without giving the interpreter back."""
        return sum(range(size))

    def spin_in_background(self) -> None:
        work = hashlib.pbkdf2_hmac  # gives the interpreter back
        threading.Thread(target=work, args=("sha256", b"", b"", 2**31 - 1), daemon=True).start()

    def priorities(self) -> tuple[int, str]:
        return os.nice(0), Path("/proc/self/autogroup").read_text().split()[-1]

    def hang(self) -> None:
        threading.Event().wait()

    def fill_memory(self) -> int:
        return len(bytearray(2**31))

    def open_files(self) -> int:
        files = []
        try:
            while True:
                files.append(Path(os.devnull).open())  # noqa: SIM115 - until there are no more
        except OSError:
            return len(files)
        finally:
            for each in files:
                each.close()

    def work_without_request(self, steps: int) -> int:
        for step in range(steps):
            self.progress(step, steps)
            threading.Event().wait(0.1)
        return steps

    def refuse(self) -> None:
        raise ProbeError("no such thing", hint="look elsewhere", thing="lamp")

    def fail(self, text: str) -> None:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise ValueError(text) from error

    def miss_file(self) -> None:
        Path("/nonexistent/file").read_text()

    def undeclared(self, value=None):
        return (1, 2) if value is None else value

    def lie(self) -> int:
        return "seven"  # type: ignore[return-value]  # the point

    def open_lock(self, marker: str) -> ProbeLock:
        Path(marker).touch()
        return ProbeLock()

    def generate(self):
        yield 1

    def print_lines(self, count: int) -> None:
        for number in range(count):
            print("line", number, "x" * 50)
        os.write(2, b"an error line \xff\n")
        logging.getLogger("library").warning("a library's line")
        self.log.warning("a line of the driver", extra={"volume": "v1"})

    def work(self, ctx: Context, steps: int) -> str:
        for step in range(steps):
            ctx.progress(step + 1, steps, f"step {step + 1}")
        return f"{ctx.topic}.{ctx.method} {ctx.request_id} {ctx.role} {ctx.peer.name}"

    def work_until_cancelled(self, ctx: Context) -> None:
        self.kv.set("working", True)
        while True:
            ctx.check()
            threading.Event().wait(0.005)

    def record_step(self, ctx: Context) -> None:
        ctx.step("one", lambda: None)

    def count(self, key: str) -> int:
        count = (self.kv.get(key, 0) or 0) + 1
        self.kv.set(key, count)
        assert self.kv.items("c") == {key: count}
        return count

    def store_oddly(self) -> None:
        self.kv.set("odd", object())

    def secret(self) -> str:
        return self.options.word.get_secret_value()

    def shade(self) -> str:
        return self.options.shade

    def environment_variables(self) -> dict[str, str]:
        return dict(os.environ)

    def descriptors(self) -> dict[str, str]:
        found = Path("/proc/self/fd")
        return {each.name: str(each.readlink()) for each in found.iterdir() if each.is_symlink()}

    def leave_child(self, own_session: bool = False) -> int:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        return subprocess.Popen(command, start_new_session=own_session).pid

    def cleanup(self) -> None:
        if self.options.shade == "hanging":
            threading.Event().wait()
        self.log.info("cleaned up")


class Dancer(Probe):
    """Supports the optional feature."""

    features = frozenset({"dance"})

    def dance(self) -> None:
        return


def make_probe(environment: DriverEnvironment) -> Probe:
    """A factory."""
    return Probe(environment)
