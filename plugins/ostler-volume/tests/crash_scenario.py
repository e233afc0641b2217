"""Operations that are stopped at their Nth step, and what must be true afterwards.

As a program it does that for real: `crash_scenario.py FOLDER` forks a process for every step of every operation, lets
it die there by `os._exit`, starts again on what it left, and prints one line for each.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import traceback
from pathlib import Path

import msgspec

from ostler import Context, DriverEnvironment, DriverState, ManagerEnvironment, ServiceNotFound, Store
from ostler.testing import FakeClock
from ostler.types import DriverStatus
from ostler_volume import loop_device
from ostler_volume.file_driver import FileDriver, FileDriverOptions
from ostler_volume.manager import VolumeManager
from ostler_volume.volume_options import VolumeOptions

# private: _context: operations that are not recorded yet show in nothing else

KIB = 2**10
SIZE = 256 * KIB
CONTENT = bytes(range(256)) * 512 + bytes(KIB)
LOG = logging.LoggerAdapter(logging.getLogger("ostler.volume"), {})


class Steps:
    """Counts the steps of an operation, and dies at the Nth."""

    def __init__(self, at, die):
        self.at, self.die, self.taken, self.on = at, die, 0, False

    def __call__(self, name):
        if self.on:
            self.taken += 1
            if self.taken == self.at:
                self.on = False
                self.die(name)


class SteppingStore:
    """A store whose writes are two steps each: before and after the commit."""

    def __init__(self, store, step):
        self._store, self._step = store, step

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write(self, fn, **named):
        self._step("before a commit")
        result = self._store.write(fn, **named)
        self._step("after a commit")
        return result


class RecordedSteps:
    """An operation whose steps are in the database, committed with what they are a part of or by themselves."""

    is_handed_over = False

    def __init__(self, store, step, *, is_resumed):
        self._store, self._step, self.is_resumed = store, step, is_resumed
        self._kv = store.kv("test/steps")
        self._known = dict(self._kv.items())

    def is_recorded(self, name):
        return name in self._known

    def step(self, context, name, function, result_type):
        if name in self._known:
            return msgspec.convert(self._known[name], result_type)
        result = function()
        is_part = self._store.is_writing
        if not is_part:
            self._step("before a step is recorded")
        self._kv.set(name, msgspec.to_builtins(result))
        if not is_part:
            self._known[name] = msgspec.to_builtins(result)
            self._step("after a step was recorded")
        return result


class OneDriver(dict):
    def ready(self):
        return list(self)

    def status(self, name):
        return DriverStatus(name=name, driver="file", state=DriverState.READY)


class NoClient:
    def on(self, **_):
        return self

    def call(self, topic, method, /, **_):
        raise ServiceNotFound(f"no service on {topic}")

    def publish(self, *_, **__):
        pass


class CrashSubject:
    """A service on a folder; `step` is called at every step of store and driver."""

    def __init__(self, root, step=lambda _name: None, *, is_reconciled=True):
        self.root, self.directory, self.step = root, root / "volumes", step
        self.store = Store.open(root / "state" / "ostler.db")
        self.store.migrate("volume", "ostler_volume.migrations")
        options = FileDriverOptions(
            driver="file", path=str(self.directory), reserve="0B", image_directories=[str(root)]
        )
        given = {"topic": "volume", "host": "node1", "clock": FakeClock(), "log": LOG}
        self.driver = FileDriver(
            DriverEnvironment(name="local", options=options, kv=self.store.kv("driver/volume/local"), **given)
        )
        self.driver.directory.on_step = step
        self.driver.initialise()
        self.manager = VolumeManager(
            ManagerEnvironment(
                options=VolumeOptions(manager="volume"),
                drivers=OneDriver(local=self.driver),
                store=SteppingStore(self.store, step),
                client=NoClient(),
                **given,
            )
        )
        self.ctx = Context("volume", "crash")
        if is_reconciled:
            self.manager.driver_ready("local")

    def run_as_operation(self, operation, *, is_resumed):
        """Run an operation whose steps are recorded."""
        self.ctx.operation = RecordedSteps(self.store, self.step, is_resumed=is_resumed)
        try:
            OPERATIONS[operation](self)
        finally:
            self.ctx.operation = None

    def close(self):
        self.store.close()
        self.driver.cleanup()

    def prepare(self):
        (self.root / "image").write_bytes(CONTENT)
        manager, ctx = self.manager, self.ctx
        manager.create_volume(ctx, "gold", SIZE, image=str(self.root / "image"))
        manager.create_snapshot(ctx, "gold", "v1")
        manager.create_volume(ctx, "spare", SIZE, source="gold")
        manager.create_snapshot(ctx, "spare", "v1")
        manager.delete_snapshot(ctx, "spare", "v1")

    def image(self):
        return str(self.root / "image")


def _attach_and_detach(house):
    house.manager.attach_volume(house.ctx, "spare")
    house.manager.detach_volume(house.ctx, "spare")


OPERATIONS = {
    "create": lambda house: house.manager.create_volume(house.ctx, "new", SIZE),
    "create from image": lambda house: house.manager.create_volume(house.ctx, "new", SIZE, image=house.image()),
    "clone": lambda house: house.manager.create_volume(house.ctx, "new", SIZE, source="gold"),
    "from snapshot": lambda house: house.manager.create_volume(house.ctx, "new", SIZE, snapshot="gold@v1"),
    "extend": lambda house: house.manager.extend_volume(house.ctx, "spare", 2 * SIZE),
    "delete": lambda house: house.manager.delete_volume(house.ctx, "spare"),
    "create snapshot": lambda house: house.manager.create_snapshot(house.ctx, "gold", "v2"),
    "delete snapshot": lambda house: house.manager.delete_snapshot(house.ctx, "gold", "v1"),
    "attach and detach": _attach_and_detach,
}
FILLED = ("create from image", "clone", "from snapshot")


def check(house, operation, finished):
    """Raise unless records and files agree, nothing is half done, and what was acknowledged is there."""
    volumes = {one.name: one for one in house.manager.records.volumes()}
    snapshots = {f"{one.volume}@{one.name}": one for one in house.manager.records.snapshots()}
    inventory = house.driver.inventory()
    assert {one.state for one in (*volumes.values(), *snapshots.values())} <= {"available", "in-use"}, volumes
    assert {name: one.size for name, one in volumes.items()} == {k: v.size for k, v in inventory.volumes.items()}
    assert {name: one.size for name, one in snapshots.items()} == {k: v.size for k, v in inventory.snapshots.items()}
    assert {name: one.device for name, one in volumes.items() if one.device} == inventory.devices
    assert inventory.partials == frozenset()
    assert house.manager._context.unrecorded["local"] == {}
    assert all(one.promised == one.size for one in volumes.values())
    wanted = {"gold": CONTENT, "spare": CONTENT, "new": CONTENT if operation in FILLED else b""}
    for name in volumes:
        data = (house.directory / "volumes" / name).read_bytes()
        assert data == wanted[name] + bytes(len(data) - len(wanted[name])), name
    if finished:
        done = {
            "extend": lambda: volumes["spare"].size == 2 * SIZE,
            "delete": lambda: "spare" not in volumes,
            "create snapshot": lambda: "gold@v2" in snapshots,
            "delete snapshot": lambda: "gold@v1" not in snapshots,
            "attach and detach": lambda: not inventory.devices,
        }
        assert done.get(operation, lambda: "new" in volumes)(), "acknowledged and lost"


def recover(root, operation, finished):
    """Start again on what was left, check it, and see that work goes on."""
    house = CrashSubject(root)
    try:
        check(house, operation, finished)
        for volume in house.manager.records.volumes():
            if volume.device:
                house.manager.detach_volume(house.ctx, volume.name)
        house.manager.create_volume(house.ctx, "after", SIZE)
        house.manager.delete_volume(house.ctx, "after")
    finally:
        for device in house.driver.inventory().devices.values():
            loop_device.detach(device, lambda: None)
        house.close()


def copy_of(template, root):
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root)
    return root


def forked(work):
    """Run in a process of its own; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _prepare(template):
    house = CrashSubject(template)
    house.prepare()
    house.close()


def _exit_at(name):
    sys.stdout.write(f"{name}, ")
    sys.stdout.flush()
    os._exit(17)


def _work(root, operation, number):
    steps = Steps(number, _exit_at)
    house = CrashSubject(root, steps)
    steps.on = True
    OPERATIONS[operation](house)
    steps.on = False
    house.close()


def main(folder):
    template = folder / "template"
    assert forked(lambda: _prepare(template)) == 0
    for operation in OPERATIONS:
        if operation.startswith("attach") and loop_device.unusable_reason():
            continue
        for number in range(1, 100):
            root = copy_of(template, folder / "root")
            died = forked(lambda: _work(root, operation, number))  # noqa: B023 - run at once
            assert died in (0, 17), (operation, number)
            recovered = forked(lambda: recover(root, operation, died == 0))  # noqa: B023 - run at once
            sys.stdout.write(f"{operation}, step {number}: {'ok' if recovered == 0 else 'WRONG'}\n")
            sys.stdout.flush()
            if died == 0:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
