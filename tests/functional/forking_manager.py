"""A manager and a driver that fork in every way that plugins do; named in configurations by import path."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import fcntl
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from ostler import Context, Driver, Manager, exposed, periodic

CODES = {"falls off": 0, "exits": 3, "exits with nothing": 0, "raises": 1, "exits at once": 5, "computes": 7}
"""How a child may end, and its exit code then."""


def end(how: str) -> None:
    """End this child; returns when it is to fall off its end."""
    if how == "exits":
        sys.exit(3)
    if how == "exits with nothing":
        sys.exit()
    if how == "raises":
        raise RuntimeError("the child has failed")
    if how == "exits at once":
        os._exit(5)
    if how == "computes":
        sys.exit(sum(range(4)) + len(asyncio.run(asyncio.sleep(0.01, "x"))))


class ForkingDriver(Driver):
    """Forks in a driver's thread."""

    def fork(self, how: str) -> int:
        """Fork; return the exit code of the child."""
        child = os.fork()
        if not child:
            end(how)
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class ForkingManager(Manager):
    """Forks wherever its code runs."""

    driver_type = ForkingDriver
    journal_events = True
    periodic_code: int | None = None
    hook_code: int | None = None

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        """Fork in a hook."""
        self.held = os.open(os.environ["HELD"], os.O_RDWR | os.O_CREAT)
        fcntl.flock(self.held, fcntl.LOCK_EX)
        child = os.fork()
        if not child:
            sys.exit(9)
        self.hook_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @periodic(spacing=3600, run_at_once=True)
    def tick(self, ctx: Context) -> None:
        """Fork in a periodic task."""
        child = os.fork()
        if not child:
            sys.exit(8)
        self.periodic_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @exposed(role="viewer", changes=False)
    def codes(self, ctx: Context) -> list[int | None]:
        """Return how the children of the hook and of the periodic task have ended."""
        return [self.hook_code, self.periodic_code]

    @exposed(role="operator")
    def fork(self, ctx: Context, how: str) -> int:
        """Fork on a thread of the pool."""
        child = os.fork()
        if not child:
            end(how)
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @exposed(role="operator")
    def dfork(self, ctx: Context, how: str) -> int:
        """Fork in a driver."""
        return int(self.drivers["device"].fork(how))

    @exposed(role="operator")
    async def afork(self, ctx: Context, how: str, later: bool = False) -> int:
        """Fork on the loop, in the first step or in a later one."""
        if later:
            await asyncio.sleep(0.01)
        child = os.fork()
        if not child:
            end(how)
            return 0
        return await self._wait(child)

    @exposed(role="operator")
    async def awaits(self, ctx: Context) -> int:
        """Fork a child that goes on to wait for the daemon's loop."""
        never = asyncio.get_running_loop().create_future()
        child = os.fork()
        if not child:
            await never
        return await self._wait(child)

    @exposed(role="operator")
    async def task(self, ctx: Context) -> int:
        """Fork in a task that nobody of the daemon's owns."""
        pids: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            child = os.fork()
            if not child:
                sys.exit(3)
            pids.set_result(child)

        task = asyncio.create_task(work())
        code = await self._wait(await pids)
        await task
        return code

    @exposed(role="operator")
    async def callback(self, ctx: Context, how: str) -> int:
        """Fork in a callback of the loop."""
        pids: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def work() -> None:
            child = os.fork()
            if not child:
                end(how)
            else:
                pids.set_result(child)

        asyncio.get_running_loop().call_soon(work)
        return await self._wait(await pids)

    async def _wait(self, child: int) -> int:
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            await asyncio.sleep(0.01)

    @exposed(role="operator")
    def terminals(self, ctx: Context) -> int:
        """Fork with a terminal of its own."""
        child, descriptor = pty.fork()
        if not child:
            sys.exit(6)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(descriptor)
        return code

    @exposed(role="operator")
    async def terminate(self, ctx: Context, count: int) -> list[int]:
        """End children on the loop at once after their fork; return their exit codes."""
        codes = []
        for _ in range(count):
            child = os.fork()
            if not child:
                time.sleep(60)
            os.kill(child, signal.SIGTERM)
            codes.append(await self._wait(child))
        return codes

    @exposed(role="operator")
    def pool(self, ctx: Context) -> list[int]:
        """Have a pool of processes work, and terminate it."""
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])

    @exposed(role="operator")
    def look(self, ctx: Context) -> list[str]:
        """Return what a child has of the daemon's: descriptors, signals, variables."""
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.write(write, "\n".join(seen()).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as found:
            lines = found.read().split("\n")
        os.waitpid(child, 0)
        return lines

    @exposed(role="operator")
    def use(self, ctx: Context) -> list[str]:
        """Return what a child is told that uses what is the daemon's."""
        read, write = os.pipe()
        child = os.fork()
        if not child:
            for use in (
                lambda: self.client.call("forking", "codes"),
                lambda: self.store.write(lambda: None),
                lambda: self.store.read(lambda: None),
            ):
                try:
                    use()
                except RuntimeError as error:
                    os.write(write, f"{error}\n".encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as found:
            lines = found.read().splitlines()
        os.waitpid(child, 0)
        return lines

    @exposed(role="operator")
    def outlive(self, ctx: Context) -> int:
        """Fork a child that lives on, and return its process id."""
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        return child

    @exposed(role="operator")
    def run(self, ctx: Context) -> str:
        """Run another program, also in the way that forks the interpreter."""
        plain = subprocess.run(["echo", "plain"], capture_output=True, text=True, check=True).stdout
        hooked = subprocess.run(
            ["sh", "-c", "read x; echo $x"],
            input="hooked\n", capture_output=True, text=True, check=True, preexec_fn=os.getpid,
        ).stdout  # fmt: skip
        return plain + hooked

    @exposed(role="operator")
    def orphan(self, ctx: Context) -> int:
        """Run a program that leaves another behind; return its exit code."""
        return subprocess.run(["sh", "-c", "(sleep 0.05; exit 3) & sleep 0.02; exit 7"], check=False).returncode

    @exposed(role="operator")
    def leave_running(self, ctx: Context) -> int:
        """Leave a thread and a process behind."""
        threading.Thread(target=time.sleep, args=(60,), name="forgotten", daemon=False).start()
        return subprocess.Popen(["sleep", "61"]).pid

    @exposed(role="operator")
    def leave_all(self, ctx: Context) -> list[int]:
        """Leave behind whatever could hold up an exit: an executor, a function of `atexit`, children that inherit."""
        executor = concurrent.futures.ThreadPoolExecutor(2)
        executor.submit(time.sleep, 62)
        executor.submit(time.sleep, 62)
        atexit.register(time.sleep, 62)
        forked = os.fork()
        if not forked:
            time.sleep(62)
            os._exit(0)
        inheriting = subprocess.Popen(["sleep", "62"], close_fds=False)
        return [forked, inheriting.pid]


def seen() -> list[str]:
    """Return what this process has of the daemon's."""
    lines: list[Any] = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            lines.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")  # noqa: PTH115
        except OSError:
            continue
    names = ("SIGHUP", "SIGTERM", "SIGINT", "SIGUSR2")
    lines += [f"{name} {signal.getsignal(getattr(signal, name))}" for name in names]
    lines.append(f"wakeup {signal.set_wakeup_fd(-1)}")
    lines.append(f"blocked {signal.pthread_sigmask(signal.SIG_BLOCK, ())}")
    return [str(line) for line in lines]
