"""A client process that asks a daemon for all kinds of things, goes on when the daemon is killed, and writes it down.

It is run as a program: `load_client.py ROOT NAME SEED`. A line `pause`, `go` or `stop` on its standard input is
answered with the same word, as soon as no request is under way; without a line it works until its input is closed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from history import BEGIN, DONE, REFUSED, UNKNOWN, Journal

from ostler import (
    Busy,
    Client,
    ConnectionLost,
    DaemonNotRunning,
    DriverNotReady,
    NoCapacity,
    OstlerError,
    RequestError,
    ServiceNotFound,
)
from ostler.messaging import Event

NOTHING_DONE = (RequestError, Busy, DriverNotReady, ServiceNotFound)
"""Errors that say that nothing was changed; after any other one nobody knows."""
SECTOR = 512
IMAGE_SIZE = 48 * 1024
MAX_VOLUMES = 5
_SUBMIT_TIMEOUT = 5.0
METHODS = ("resumed", "resumed", "retried", "undone", "once")


class Gate:
    """Lets the threads work, or holds them between two requests."""

    def __init__(self, threads: int) -> None:
        self._condition = threading.Condition()
        self._threads = threads
        self._held = 0
        self._is_closed = False
        self.is_stopped = False

    def pass_or_wait(self) -> None:
        """Wait while the load is paused. On a thread of the load."""
        with self._condition:
            self._held += 1
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._is_closed or self.is_stopped)
            self._held -= 1

    def close(self) -> None:
        """Return when all threads wait, or have ended."""
        with self._condition:
            self._is_closed = True
            self._condition.wait_for(lambda: self._held >= self._threads)

    def open(self) -> None:
        """Let them go on."""
        with self._condition:
            self._is_closed = False
            self._condition.notify_all()

    def stop(self) -> None:
        """End them all."""
        with self._condition:
            self.is_stopped = True
            self._condition.notify_all()

    def leave(self) -> None:
        """Count a thread that ends as one that waits."""
        with self._condition:
            self._held += 1
            self._condition.notify_all()


class Worker:
    """One thread with a client of its own.

    Args:
        root: The daemon's directory.
        name: Begins all names that it gives.
        seed: What it does follows from this, as far as answers of the daemon do not decide.
        journal: Where it writes down what it does.
    """

    def __init__(self, root: str, name: str, seed: str, journal: Journal) -> None:
        self.root = root
        self.name = name
        self.rng = random.Random(seed)
        self.journal = journal
        self.number = 0
        self.client = Client(root=root, timeout=30.0)

    def next_name(self) -> str:
        """Return a name that was not used before."""
        self.number += 1
        return f"{self.name}.{self.number}"

    def act(self) -> None:
        """Make one request."""
        raise NotImplementedError

    def pause(self) -> float:
        """Return the seconds until the next one."""
        return self.rng.uniform(0.0, 0.03)

    def request(
        self, what: str, key: str, ask: Callable[[], Any], /, *, is_repeated: bool = False, **details: Any
    ) -> tuple[str, Any]:
        """Write down a request, make it, and write down what came of it; return the phase and the result.

        Args:
            what: The kind of the request; see `History`.
            key: What it is about.
            ask: Makes it.
            is_repeated: Whether `ask` sends it again after a connection was lost: then the last error says little.
            details: What is written down with it.
        """
        self.journal.write(what, key, BEGIN, **details)
        try:
            result = ask()
        except OstlerError as error:
            is_away = isinstance(error, (DaemonNotRunning, ConnectionLost))
            was_sent = is_repeated and (is_away or isinstance(error, (Busy, ServiceNotFound)))
            nothing_done = isinstance(error, (*NOTHING_DONE, DaemonNotRunning)) and not was_sent
            # On a full disk it had begun, and is undone when the database can be written again.
            nothing_done = nothing_done and not isinstance(error, NoCapacity)
            phase = REFUSED if nothing_done else UNKNOWN
            self.journal.write(what, key, phase, **details, why=f"{type(error).__name__}: {error}")
            if is_away:
                time.sleep(0.02)
            return phase, None
        self.journal.write(what, key, DONE, **details)
        return DONE, result


class OperationWorker(Worker):
    """Submits operations, looks at their ends, and cancels some."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._running: list[str] = []

    def act(self) -> None:
        chance = self.rng.random()
        if chance < 0.6 or not self._running:
            self._submit()
        elif chance < 0.7:
            self._call()
        elif chance < 0.78:
            self._cancel()
        else:
            self._look()

    def _submit(self) -> None:
        name, method, steps = self.next_name(), self.rng.choice(METHODS), self.rng.randint(1, 4)
        pause = self.rng.choice((0.0, 0.0, 0.005, 0.05))
        submit = self.client.on(request_id=name, timeout=_SUBMIT_TIMEOUT).submit
        phase, _ = self.request(
            "submit", name, lambda: submit("work", method, name=name, steps=steps, pause=pause),
            is_repeated=True, method=method, steps=steps,
        )  # fmt: skip
        if phase != REFUSED:
            self._running = [*self._running[-50:], name]

    def _call(self) -> None:
        """Wait for the end of a durable method, as an ordinary call does."""
        name, method, steps = self.next_name(), self.rng.choice(("resumed", "undone")), self.rng.randint(1, 2)
        phase, result = self.request(
            "submit", name, lambda: self.client.call("work", method, name=name, steps=steps),
            method=method, steps=steps, is_call=True,
        )  # fmt: skip
        if phase == DONE:
            self.journal.write("ended", name, DONE, state="succeeded", result=result)

    def _cancel(self) -> None:
        name = self.rng.choice(self._running)
        self.request("cancel", name, self.client.operation(name).cancel)

    def _look(self) -> None:
        name = self._running.pop(self.rng.randrange(len(self._running)))
        try:
            status = self.client.operation(name).inspect()
        except OstlerError:
            return
        if status.state.is_final:
            self.journal.write("ended", name, DONE, state=str(status.state), result=status.result)
        else:
            self._running.append(name)


class ValueWorker(Worker):
    """Sets values, alone and two in one write; casts; and has events published."""

    def act(self) -> None:
        self.number += 1
        kind = self.rng.choice(("set", "set", "pair", "cast", "tell"))
        key = f"{self.name}.{kind}{self.rng.randrange(3)}"
        if kind == "set":
            self.request("set", key, lambda: self._call("set_value", key), value=self.number)
        elif kind == "pair":
            self.request("pair", key, lambda: self._call("set_pair", key), value=self.number)
        elif kind == "cast":
            name = self.next_name()
            self.request("cast", name, lambda: self.client.cast("work", "once", name=name))
        else:
            try:
                self.client.call("work", "tell", name=self.name, count=self.rng.randint(1, 20))
            except OstlerError:
                time.sleep(0.02)

    def _call(self, method: str, key: str) -> Any:
        return self.client.call("work", method, key=key, value=self.number)


class VolumeWorker(Worker):
    """Creates, copies, extends and deletes volumes and snapshots of its own.

    One of which it does not know what became of it is not used any more.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._volumes: dict[str, tuple[int, bool]] = {}
        self._snapshots: dict[str, tuple[int, bool]] = {}
        self._image = str(Path(self.root) / "images" / "image")

    def act(self) -> None:
        actions = [self._create, self._create_from_image]
        if self._volumes:
            actions += [self._clone, self._snapshot, self._extend]
            if len(self._volumes) >= MAX_VOLUMES or self.rng.random() < 0.3:
                actions = [self._delete]
        if self._snapshots:
            actions += [self._from_snapshot, self._delete_snapshot, self._delete_snapshot]
        self.rng.choice(actions)()

    def _pick(self) -> str:
        return self.rng.choice(sorted(self._volumes))

    def _size(self) -> int:
        return IMAGE_SIZE + SECTOR * self.rng.randint(0, 100)

    def _create(self) -> None:
        self._make(self._size(), False)

    def _create_from_image(self) -> None:
        self._make(self._size(), True, image=self._image)

    def _clone(self) -> None:
        source = self._pick()
        size, filled = self._volumes[source]
        if not self._make(size, filled, source=source):
            self._volumes.pop(source)  # it may be held by what goes on

    def _from_snapshot(self) -> None:
        snapshot = self.rng.choice(sorted(self._snapshots))
        size, filled = self._snapshots[snapshot]
        if not self._make(size, filled, snapshot=snapshot):
            self._drop(snapshot.split("@")[0])

    def _make(self, size: int, filled: bool, **more: Any) -> bool:
        name = self.next_name().replace(".", "-")
        arguments = {"name": name, "size": size, "backend": "local", **more}
        phase = self._change("volume", name, (size, filled), "create_volume", arguments)
        if phase == DONE:
            self._volumes[name] = (size, filled)
        return phase != UNKNOWN

    def _snapshot(self) -> None:
        volume, name = self._pick(), f"s{self.number}"
        self.number += 1
        size, filled = self._volumes[volume]
        key = f"{volume}@{name}"
        phase = self._change("snapshot", key, (size, filled), "create_snapshot", {"volume": volume, "name": name})
        if phase == DONE:
            self._snapshots[key] = (size, filled)
        elif phase == UNKNOWN:
            self._drop(volume)

    def _extend(self) -> None:
        name = self._pick()
        size, filled = self._volumes.pop(name)
        larger = size + SECTOR * self.rng.randint(1, 50)
        phase = self._change("volume", name, (larger, filled), "extend_volume", {"name": name, "size": larger})
        if phase != UNKNOWN:
            self._volumes[name] = (larger if phase == DONE else size, filled)

    def _delete(self) -> None:
        name = self._pick()
        if snapshots := [key for key in self._snapshots if key.startswith(f"{name}@")]:
            self._remove_snapshot(snapshots[0])
            return
        before = self._volumes.pop(name)
        if self._change("volume", name, None, "delete_volume", {"name": name}) == REFUSED:
            self._volumes[name] = before

    def _delete_snapshot(self) -> None:
        if self._snapshots:
            self._remove_snapshot(self.rng.choice(sorted(self._snapshots)))

    def _remove_snapshot(self, key: str) -> None:
        before = self._snapshots.pop(key)
        volume, name = key.split("@")
        phase = self._change("snapshot", key, None, "delete_snapshot", {"volume": volume, "name": name})
        if phase == REFUSED:
            self._snapshots[key] = before
        elif phase == UNKNOWN:
            self._drop(volume)

    def _drop(self, volume: str) -> None:
        self._volumes.pop(volume, None)
        for key in [key for key in self._snapshots if key.startswith(f"{volume}@")]:
            self._snapshots.pop(key)

    def _change(
        self, what: str, key: str, after: tuple[int, bool] | None, method: str, arguments: dict[str, Any]
    ) -> str:
        is_call = self.rng.random() < 0.7

        def ask() -> Any:
            if is_call:
                return self.client.call("volume", method, **arguments)
            return self._submit(method, arguments)

        phase, _ = self.request(what, key, ask, is_repeated=not is_call, after=after, method=method)
        return phase

    def _submit(self, method: str, arguments: dict[str, Any]) -> Any:
        """Have it done as an operation, which is to end whatever happens to the daemon."""
        name = f"{self.next_name()}.op"
        submit = self.client.on(request_id=name, timeout=_SUBMIT_TIMEOUT).submit
        self.journal.write("submit", name, BEGIN, method=method, topic="volume")
        operation = submit("volume", method, **arguments)
        self.journal.write("submit", name, DONE)
        return operation.result(timeout=20)


class EventReader(Worker):
    """Reads the journaled events, and after each restart those that it has missed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._last: Event | None = None
        self._stream: Any = None

    def act(self) -> None:
        try:
            if self._stream is None:
                self._stream = self.client.events("work", since=self._last or 1)
            item = self._stream.next(timeout=0.1)
        except OstlerError:
            self._stream = None
            time.sleep(0.02)
            return
        if isinstance(item, Event):
            self._last = item
            seen = [item.sequence, item.epoch, item.journaled, item.payload]
            self.journal.write("event", self.name, DONE, item=seen)
        elif item is not None:
            self.journal.write("gap", self.name, DONE, item=[item.first, item.last])

    def pause(self) -> float:
        return 0.0


WORKERS: dict[str, type[Worker]] = {
    "operations": OperationWorker,
    "values": ValueWorker,
    "volumes": VolumeWorker,
    "events": EventReader,
}


def run_worker(worker: Worker, gate: Gate) -> None:
    """Make requests until the gate is stopped."""
    try:
        while not gate.is_stopped:
            gate.pass_or_wait()
            if not gate.is_stopped:
                worker.act()
                time.sleep(worker.pause())
    finally:
        gate.leave()


def main(root: str, name: str, seed: str, kinds: list[str]) -> None:
    """Run one worker of each kind."""
    journal = Journal(Path(root) / "history" / f"{name}.jsonl")
    gate = Gate(len(kinds))
    workers = [
        WORKERS[kind](root, f"{name}{number}", f"{seed}/{name}/{number}", journal) for number, kind in enumerate(kinds)
    ]
    threads = [threading.Thread(target=run_worker, args=(worker, gate), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        getattr(gate, {"pause": "close", "go": "open", "stop": "stop"}[line.strip()])()
        if line.strip() == "stop":
            for thread in threads:
                thread.join(60)
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(","))
