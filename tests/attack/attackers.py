"""An attacker: a process of another user that gets as many connections as it can and sends what an attack says.

python attackers.py UID FOLDER-OF-THE-SOCKETS ATTACK     sends, after a line on stdin, until killed
python attackers.py UID - spin                           computes instead, and touches no socket
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Sequence

from attack_table import ATTACKS, Attack
from hostile_wire import hello

_READ = 1 << 20
_CONNECTS_A_TURN = 32
_RETRY_DELAY = 0.005


class AttackConnection:
    """One connection: what of it has been sent."""

    def __init__(self, connected: socket.socket, opening: Sequence[bytes], again: Sequence[bytes], first: int) -> None:
        self.socket = connected
        self._opening = list(opening)
        self._again = again
        self._next = first
        self._rest: memoryview = memoryview(b"")

    @property
    def idle(self) -> bool:
        """Whether it has nothing more to send."""
        return not self._rest and not self._opening and not self._again

    def send(self) -> int:
        """Send as much as the kernel takes; return how much that was. Raises OSError when it was cut."""
        if not self._rest:
            if self._opening:
                self._rest = memoryview(self._opening.pop(0))
            else:
                self._rest = memoryview(self._again[self._next % len(self._again)])
                self._next += 1
        sent = self.socket.send(self._rest)
        self._rest = self._rest[sent:]
        return sent


class Flood:
    """Has connections send, and replaces those that are cut.

    Args:
        attack: What is sent.
        path: The socket.
    """

    def __init__(self, attack: Attack, path: str) -> None:
        self._attack = attack
        self._path = path
        start = [hello(attack.kind)] if attack.hello else []
        opening = [*start, *attack.opening()]
        self._opening = [b"".join(opening)] if sum(map(len, opening)) < _READ else opening
        self._again = attack.again()
        self._poll = select.epoll()
        self._open: dict[int, AttackConnection] = {}
        self._retry_at = 0.0
        self.counts = {"connected": 0, "most": 0, "refused": 0, "cut": 0, "sent": 0, "received": 0}

    def run(self, until: float) -> None:
        """Attack until a moment of `time.monotonic`."""
        while time.monotonic() < until:
            self._connect()
            ready = self._poll.poll(0.01 if len(self._open) < self._attack.connections else 0.2)
            for number, event in ready:
                if number in self._open:
                    self._serve(number, self._open[number], event)

    def _connect(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        for _ in range(min(_CONNECTS_A_TURN, self._attack.connections - len(self._open))):
            connected = socket.socket(socket.AF_UNIX)
            connected.setblocking(False)
            try:
                connected.connect(self._path)
            except OSError:
                connected.close()
                self.counts["refused"] += 1
                self._retry_at = time.monotonic() + _RETRY_DELAY
                return
            self.counts["connected"] += 1
            number = connected.fileno()
            self._open[number] = AttackConnection(connected, self._opening, self._again, self.counts["connected"])
            self._poll.register(number, self._events(idle=False))
        self.counts["most"] = max(self.counts["most"], len(self._open))

    def _events(self, *, idle: bool) -> int:
        return (0 if idle else select.EPOLLOUT) | (select.EPOLLIN if self._attack.reads else select.EPOLLRDHUP)

    def _serve(self, number: int, connection: AttackConnection, event: int) -> None:
        try:
            if event & select.EPOLLIN:
                received = len(connection.socket.recv(_READ))
                self.counts["received"] += received
                if not received:
                    raise ConnectionResetError
            if event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                raise ConnectionResetError
            if event & select.EPOLLOUT:
                self.counts["sent"] += connection.send()
                if connection.idle:
                    self._finish(number)
        except BlockingIOError:
            pass
        except OSError:
            self.counts["cut"] += 1
            self._drop(number)

    def _finish(self, number: int) -> None:
        if self._attack.leaves:
            self._drop(number)
        else:
            self._poll.modify(number, self._events(idle=True))

    def _drop(self, number: int) -> None:
        self._poll.unregister(number)
        self._open.pop(number).socket.close()


def become(uid: int) -> None:
    """Be another user, without groups, for good."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def main() -> None:
    """Attack as the arguments say."""
    uid, folder, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    become(uid)
    attack = ATTACKS[name]
    flood = Flood(attack, f"{folder}/{'events' if attack.kind == b'SUB' else 'rpc'}.sock")
    print("up", flush=True)
    seconds = float(sys.stdin.readline())
    until = time.monotonic() + seconds
    flood.run(until)
    print(json.dumps(flood.counts), flush=True)


if __name__ == "__main__":
    main()
