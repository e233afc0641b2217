"""The process of a driver: `python -m ostler.driver.process TOPIC/NAME CONTROL CHANNELS PARENT`.

Started by the daemon only; the two numbers are descriptors of sockets.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import socket
import sys

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def main(arguments: list[str]) -> None:
    """Serve calls until the daemon closes the socket of the channels, or is gone."""
    title, control, doorbell, parent = arguments
    _die_with(int(parent), title)
    control_socket, channels = (_adopt(int(number)) for number in (control, doorbell))
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1)
    # Above is only what the interpreter has: a daemon that ends while this is imported takes the process with it.
    from ostler.driver.process.channel import Channel  # 0.1 s: see above

    channel = Channel(control_socket)
    message = channel.receive()
    if message is None:
        return
    from msgspec.msgpack import decode  # as above

    from ostler.driver.process.messages import Start  # as above

    start = decode(message, type=Start)
    _limit(start.memory_limit, start.descriptor_limit)
    if start.nice:
        _lower_priority(start.nice)
    sys.path[:] = start.sys_path
    from ostler.driver.process.call_server import serve  # as above

    serve(start, channel, channels)


def _die_with(parent: int, title: str) -> None:
    """Have the kernel kill this process when the daemon ends, however it does."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, f"ostler:{title}".encode("utf-8", "backslashreplace")[:15], 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _limit(memory: int, descriptors: int) -> None:
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors and (hard == resource.RLIM_INFINITY or descriptors <= hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


def _lower_priority(by: int) -> None:
    """Have the scheduler prefer others, before there are threads: each would have to be asked for."""
    try:
        nice = os.nice(by)
    except OSError as error:  # a filter of system calls
        sys.stderr.write(f"`nice` has no effect: {error.strerror}; the unit needs SystemCallFilter=setpriority\n")
        return
    try:  # without groups of the CPU controller, the kernel weighs sessions by this and not by the value above
        with open("/proc/self/autogroup", "wb", buffering=0) as group:  # noqa: PTH123 - pathlib is not imported yet
            group.write(str(nice).encode())
    except OSError:  # a kernel without
        return


if __name__ == "__main__":
    main(sys.argv[1:])
