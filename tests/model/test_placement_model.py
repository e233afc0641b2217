"""Two to four hosts with schedulers against a plain model: what is chosen could do it, what is refused was impossible.

The hosts are real but for process, sockets and disks, and time is virtual. After each step the world is left alone for
as long as docs/scheduling.md says that a change needs to be known (`_lag`), and everything is compared.

`OSTLER_MODEL_EXAMPLES=2000` and `OSTLER_MODEL_STEPS=60` look for longer, with new examples each time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import simulated_disks
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from simulated_disks import DISKS, FILESYSTEMS, GIB, Disk, Filesystem
from simulated_host import CALL_TIMEOUT, CAPABILITY_INTERVAL, REPORT_INTERVAL, ModelLoop, SimulatedHost
from simulated_network import HEARTBEAT_TIMEOUT, SimulatedNetwork

from ostler.errors import OstlerError

EXAMPLES = int(os.environ.get("OSTLER_MODEL_EXAMPLES", "0"))
STEPS = int(os.environ.get("OSTLER_MODEL_STEPS", "20"))

NUMBER = st.integers(0, 3)
"""Stands for a host or disk, modulo how many there are."""
SIZE = st.sampled_from([1, 2, 3, 5, 8])
LEASE_TIMEOUT = 60.0
LAG = 1.0
"""Seconds after which a change is known on a live link."""


class PlacementStateMachine(RuleBasedStateMachine):
    """Hosts, links and disks, and beside them what the operator has said of each volume service."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=lambda: ModelLoop(stall_timeout=5.0))
        self.loop = self.runner.get_loop()
        self.directory = Path(tempfile.mkdtemp(prefix="ostler-model-"))
        self.network = SimulatedNetwork()
        self.hosts: dict[str, SimulatedHost] = {}
        self.said: dict[str, str] = {}
        """Of each host whose volume service does not take new work: `disabled`, `draining`, `stopped`."""
        self.count = 0
        self.lag = LAG
        self.uncertain: set[str] = set()
        """File systems on which others took or gave back room that is not measured yet."""
        self.lost: set[str] = set()
        """Volumes of which nobody knows whether they were made, for the connection was lost."""
        self.steps: list[str] = []
        DISKS.clear()
        FILESYSTEMS.clear()
        simulated_disks.HELD.clear()

    def run(self, work):
        return self.runner.run(work)

    def note(self, text):
        self.steps.append(f"{self.loop.time() - 1000:7.1f} {text}")

    def told(self, text):
        """Return what is wrong, with what was done before."""
        shape = [f"{disk.host}/{disk.name} on {disk.filesystem.name}" for disk in DISKS.values()]
        return "\n".join([text, f"disks: {', '.join(shape)}", *self.steps])

    @initialize(
        shapes=st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=2), min_size=2, max_size=4),
        schedulers=st.integers(1, 2),
    )
    def begin(self, shapes, schedulers):
        for number, shape in enumerate(shapes):
            name = f"host{number}"
            for index, disks in enumerate(shape):
                filesystem = Filesystem(f"{name}-fs{index}", 10 * GIB)
                FILESYSTEMS[filesystem.name] = [Disk(name, f"d{index}{each}", filesystem) for each in range(disks)]
                for disk in FILESYSTEMS[filesystem.name]:
                    disk.call_later = lambda seconds, call: self.loop.call_soon_threadsafe(
                        self.loop.call_later, seconds, call
                    )
                    DISKS[name, disk.name] = disk
            SimulatedHost(name, self.directory / name, self.hosts, self.network, scheduler=number < schedulers)

        async def start():
            await asyncio.gather(*(host.start() for host in self.hosts.values()))

        self.run(start())

    # ---------------------------------------------------------------- what is so

    def host(self, number: int) -> SimulatedHost:
        return list(self.hosts.values())[number % len(self.hosts)]

    def disk(self, number: int, host: SimulatedHost) -> Disk:
        mine = [disk for disk in DISKS.values() if disk.host == host.name]
        return mine[number % len(mine)]

    def reaches(self, source: SimulatedHost, target: SimulatedHost) -> bool:
        pair = (source.name, target.name)
        open_ = pair not in self.network.blocked | self.network.silent
        return target.running and (source is target or open_)

    def takes_work(self, host: SimulatedHost) -> bool:
        return host.running and host.name not in self.said

    @staticmethod
    def free(disk: Disk) -> int:
        filesystem = disk.filesystem
        return filesystem.total - filesystem.foreign - simulated_disks.promised(filesystem)

    def could(self, disk: Disk, size: int, seen_from: SimulatedHost) -> bool | None:
        """Whether a disk could take a volume that a scheduler on a host places; None when that cannot be said."""
        host = self.hosts[disk.host]
        if not self.takes_work(host) or not self.reaches(seen_from, host) or disk.mode in ("readonly", "garbled"):
            return False
        neighbours = FILESYSTEMS[disk.filesystem.name]
        if disk.mode == "hung" or any(each.mode in ("boastful", "hung") for each in neighbours):
            return None
        if disk.filesystem.name in self.uncertain or self.lost:
            return None
        return size <= self.free(disk)

    def schedulers(self, entry: SimulatedHost) -> list[SimulatedHost]:
        if entry.has_scheduler:
            return [entry]
        return [host for host in self.hosts.values() if host.has_scheduler and self.reaches(entry, host)]

    def must_succeed(self, size: int, entry: SimulatedHost) -> bool:
        """Whether a create that is asked for at a host has to find a place, whichever scheduler is asked."""
        if not entry.running or self.said.get(entry.name) in ("draining", "stopped"):
            return False
        seers = self.schedulers(entry)
        if not seers:
            places = [disk for disk in DISKS.values() if disk.host == entry.name]
            return any(self.could(disk, size, entry) for disk in places)
        return all(
            any(self.could(disk, size, seer) and self.reaches(entry, self.hosts[disk.host]) for disk in DISKS.values())
            for seer in seers
        )

    # ---------------------------------------------------------------- work

    async def _create(self, entry: SimulatedHost, gib: int):
        self.count += 1
        name, size = f"v{self.count}", gib * GIB
        try:
            made = await entry.client.on(timeout=120.0).call("volume", "create_volume", name=name, size=size)
        except OstlerError as error:
            self.note(f"create {name} ({gib} GiB) at {entry.name}: {error!r}")
            return name, error
        self.note(f"create {name} ({gib} GiB) at {entry.name}: on {made['host']}/{made['backend']} {made['note']}")
        assert name in DISKS[made["host"], made["backend"]].volumes, f"{name} is said to be made, and is not there"
        return name, made

    def _no_trace(self, name: str, error: OstlerError) -> None:
        """A create that failed has left nothing, unless nobody can know."""
        places = [disk for disk in DISKS.values() if name in disk.volumes]
        if places:
            kinds = ("ConnectionLost", "DeadlineExceeded", "DriverStuck")
            assert type(error).__name__ in kinds, self.told(f"{name} failed ({error!r}), and is on {places[0].host}")

    @rule(where=NUMBER, gib=SIZE)
    def create_volume(self, where, gib):
        entry = self.host(where)
        if not entry.running:
            return
        self.create_now(entry, gib)

    @rule(where=NUMBER, gibs=st.lists(st.tuples(NUMBER, SIZE), min_size=2, max_size=5))
    def create_at_once(self, where, gibs):
        asked = [(self.host(where + number), gib) for number, gib in gibs]

        async def all_of_them():
            return await asyncio.gather(*(self._create(entry, gib) for entry, gib in asked if entry.running))

        for name, result in self.run(all_of_them()):
            if isinstance(result, OstlerError):
                self._no_trace(name, result)

    @rule(where=NUMBER, number=st.integers(0, 20), again=st.booleans())
    def delete_volume(self, where, number, again):
        """Delete a volume; and make one of its size in the next call, which fits."""
        entry = self.host(where)
        volumes = [(disk, name) for disk in DISKS.values() for name in disk.volumes]
        if not volumes or not entry.running:
            return
        disk, name = volumes[number % len(volumes)]
        size, owner = disk.volumes[name], self.hosts[disk.host]
        self.note(f"delete {name} of {disk.host}/{disk.name} at {entry.name}")
        usable = owner.running and self.said.get(owner.name) in (None, "disabled")
        asked = self.said.get(entry.name) in (None, "disabled") and self.reaches(entry, owner)
        try:
            self.run(entry.client.on(timeout=120.0).call("volume", "delete_volume", name=f"{name}@{owner.name}"))
        except OstlerError as error:
            works = usable and asked and disk.mode in ("well", "slow", "boastful")
            if works and not self.lost:
                raise
            self.lost.discard(name)
            del error
            self.lost |= {name} if name in disk.volumes else set()
            return
        self.lost.discard(name)
        assert name not in disk.volumes
        must = self.must_succeed(size, entry)
        if again:
            made, result = self.run(self._create(entry, size // GIB))
            if isinstance(result, OstlerError):
                self._no_trace(made, result)
                assert not must, self.told(f"{name} was deleted, and {size // GIB} GiB were refused: {result!r}")

    @rule(
        where=NUMBER,
        gibs=st.lists(st.tuples(NUMBER, SIZE), min_size=1, max_size=4),
        which=NUMBER,
        other=NUMBER,
        what=st.sampled_from(["cut", "silence", "disable", "stop", "restart", "crash"]),
        after=st.sampled_from([0.0, 0.3, 0.9]),
    )
    def trouble_during_creates(self, where, gibs, which, other, what, after):
        """Something happens to a host while volumes are made; all disks of it take a second for everything."""
        host, pair = self.host(which), (self.host(other).name, self.host(which).name)
        disks = [disk for disk in DISKS.values() if disk.host == host.name]
        if not host.running or host.name in self.said or any(disk.mode != "well" for disk in disks):
            return
        if what in ("cut", "silence") and pair[0] == pair[1]:
            return
        self.note(f"{what} {pair if what in ('cut', 'silence') else host.name} after {after} s of:")
        asked = [(self.host(where + number), gib) for number, gib in gibs]

        async def all_of_it():
            creates = (self._create(entry, gib) for entry, gib in asked if entry.running)
            return (await asyncio.gather(self._outage(what, host, pair, after), *creates))[1:]

        for disk in disks:
            disk.set("slow", 0.2)
        results = self.run(all_of_it())
        for disk in disks:
            disk.set("well")
        # What was cut off is settled by the host that did it, and a lease of which nothing is heard runs out.
        self.lag = (
            2 * LEASE_TIMEOUT if self._faulty_links() or what in ("restart", "crash") else CAPABILITY_INTERVAL + LAG
        )
        for name, result in results:
            if isinstance(result, OstlerError):
                self._no_trace(name, result)

    async def _outage(self, what, host, pair, after):
        await asyncio.sleep(after)
        if what in ("cut", "silence"):
            getattr(self.network, what)(pair)
        elif what in ("restart", "crash"):
            await (host.stop() if what == "restart" else host.crash())
            await host.start()
        elif what == "disable":
            await host.client.call("ostler", "service_disable", topic="volume", reason="maintenance")
            self.said[host.name] = "disabled"
        else:
            await host.client.call("ostler", "service_stop", topic="volume")
            self.said[host.name] = "stopped"

    # ---------------------------------------------------------------- trouble

    @rule(one=NUMBER, other=NUMBER, how=st.sampled_from(["cut", "silence", "mend", "mend"]))
    def change_link(self, one, other, how):
        pair = (self.host(one).name, self.host(other).name)
        if pair[0] == pair[1]:
            return

        self.note(f"{how} {pair}")

        async def change():
            if how == "cut":
                self.network.cut(pair)
            elif how == "silence" and pair not in self.network.blocked:
                self.network.heartbeat_timeout(pair)
            else:
                self.network.restore(pair)

        self.run(change())
        # A mended link is tried again by itself: at the latest after 15 s, and at once when the other side calls.
        # The other side asks every `REPORT_INTERVAL` if it can.
        back = (pair[1], pair[0])
        asked = back not in self.network.blocked | self.network.silent and self.hosts[pair[1]].running
        mended = 2 * REPORT_INTERVAL + HEARTBEAT_TIMEOUT if asked else 16.0
        self.lag = {"cut": LAG, "silence": HEARTBEAT_TIMEOUT + LAG, "mend": mended + LAG}[how]

    @rule(
        by=NUMBER,
        which=NUMBER,
        then=st.none() | SIZE,
        verb=st.sampled_from(["disable", "enable", "drain", "resume", "stop", "start"]),
    )
    def say(self, by, which, verb, then):
        """An operator says something of the volume service of a host, there or elsewhere; then a volume is made."""
        asked, host = self.host(by), self.host(which)
        if not asked.running:
            return
        more = {"reason": "maintenance"} if verb == "disable" else {}
        now = self.said.get(host.name)
        allowed = {
            None: ("disable", "drain", "stop"),
            "disabled": ("enable",),
            "draining": ("resume",),
            "stopped": ("start",),
        }
        if verb not in allowed[now]:
            return
        busy = any(disk.mode in ("hung", "slow") for disk in DISKS.values() if disk.host == host.name)
        if verb in ("stop", "start", "drain") and busy:
            return  # what hangs holds up both: tests of their own
        self.note(f"{verb} {host.name} at {asked.name}")
        try:
            self.run(
                asked.client.on(timeout=60.0).call(
                    "ostler", f"service_{verb}", topic="volume", on_host=host.name, **more
                )
            )
        except OstlerError:
            assert not self.reaches(asked, host), self.told(f"{verb} on {host.name} at {asked.name}")
            return
        became = {"disable": "disabled", "drain": "draining", "stop": "stopped"}.get(verb)
        if became:
            self.said[host.name] = became
        else:
            del self.said[host.name]
        if verb == "start":
            self.lag = 2 + LAG
        elif then:
            self.create_now(asked, then)

    def create_now(self, entry, gib):
        """What has just changed is known before a request is refused, and what does not take work any more refuses."""
        must = self.must_succeed(gib * GIB, entry)
        name, result = self.run(self._create(entry, gib))
        if not isinstance(result, OstlerError):
            assert self.takes_work(self.hosts[result["host"]]), self.told(f"{name}: {self.said}")
            return
        self._no_trace(name, result)
        assert not must, self.told(f"{gib} GiB asked for at {entry.name} were refused: {result!r}")

    @rule(which=NUMBER, back=st.booleans())
    def restart_host(self, which, back):
        """Stop a host if it runs; start one that does not, or this one again."""
        host = self.host(which)
        if any(disk.mode in ("hung", "slow") for disk in DISKS.values() if disk.host == host.name):
            return
        self.note(f"{'restart' if back else 'stop'} {host.name}")
        if host.running:
            self.run(host.stop())
        elif not back:
            return
        if back:
            self.run(host.start())
            if self.said.get(host.name) != "disabled":
                self.said.pop(host.name, None)
            self.lag = 16.0 + LAG if self._faulty_links() else 2 * LAG

    def _faulty_links(self):
        return bool(self.network.blocked | self.network.silent)

    @rule(
        which=NUMBER,
        disk=NUMBER,
        mode=st.sampled_from(["slow", "hung", "readonly", "garbled", "boastful"]),
        delay=st.sampled_from([0.3, 1.0, 3.0]),
    )
    def ail(self, which, disk, mode, delay):
        """A disk is not what it should be; it is one at a time on each host."""
        host = self.host(which)
        chosen = self.disk(disk, host)
        if not host.running or any(each.mode != "well" for each in DISKS.values() if each.host == host.name):
            return
        self.note(f"{host.name}/{chosen.name} is {mode} {delay if mode == 'slow' else ''}")
        chosen.set(mode, delay)
        if mode == "slow":
            self.uncertain.add(chosen.filesystem.name)
        self.lag = {"readonly": REPORT_INTERVAL + LAG, "garbled": CAPABILITY_INTERVAL + LAG}.get(mode, LAG)

    @rule(which=NUMBER)
    def heal(self, which):
        """All disks of a host are well again."""
        host = self.host(which)
        ailing = [disk for disk in DISKS.values() if disk.host == host.name and disk.mode != "well"]
        for disk in ailing:
            disk.set("well")
            self.uncertain.add(disk.filesystem.name)
        if ailing:
            self.note(f"{host.name} is well again")
            # A garbled report is asked for again after a pause that grows up to the interval, two good ones end it.
            self.lag = CAPABILITY_INTERVAL + CALL_TIMEOUT + LAG
            self.wait(self.lag)

    @rule(which=NUMBER, disk=NUMBER, gib=st.integers(0, 6))
    def others_use_the_disk(self, which, disk, gib):
        """Others than Ostler take room, or give it back: that is seen with the next measurement."""
        filesystem = self.disk(disk, self.host(which)).filesystem
        filesystem.foreign = min(gib * GIB, filesystem.total - simulated_disks.promised(filesystem))
        self.uncertain.add(filesystem.name)
        self.note(f"others use {filesystem.foreign // GIB} GiB of {filesystem.name}")

    @rule(seconds=st.sampled_from([0.5, 5.0, 2 * CAPABILITY_INTERVAL + LAG]))
    def wait(self, seconds):
        self.note(f"wait {seconds}")
        self.run(asyncio.sleep(seconds))
        if seconds > CAPABILITY_INTERVAL:
            slow = {disk.filesystem.name for disk in DISKS.values() if disk.mode in ("slow", "hung")}
            self.uncertain &= slow | {
                disk.filesystem.name for disk in DISKS.values() if not self.hosts[disk.host].running
            }

    # ---------------------------------------------------------------- what must be so

    @invariant()
    def nothing_is_promised_twice(self):
        for name, disks in FILESYSTEMS.items():
            filesystem = disks[0].filesystem
            taken = simulated_disks.promised(filesystem)
            assert taken <= filesystem.total - filesystem.foreign, self.told(f"{name}: {taken / GIB} GiB are promised")
            for disk in disks:
                assert not disk.overfilled, self.told(
                    f"{disk.overfilled} was let in by the records, and {name} is full"
                )
        names = [name for disk in DISKS.values() for name in disk.volumes]
        assert len(names) == len(set(names)), self.told(f"made twice: {sorted(names)}")

    @invariant()
    def each_scheduler_knows_what_could_be_chosen(self):
        if not self.hosts:
            return
        self.run(asyncio.sleep(self.lag))
        self.lag = LAG
        for seer in self.hosts.values():
            if seer.running and seer.has_scheduler:
                self._check_scheduler(seer)

    def _check_scheduler(self, seer):
        for gib in (1, 5):
            said = self.run(seer.client.call("scheduler", "explain", topic="volume", size=gib * GIB))
            chosen = {(one["host"], one["backend"]): one for one in said["candidates"]}
            for (host, name), disk in DISKS.items():
                expected = self.could(disk, gib * GIB, seer)
                row = chosen.get((host, name))
                offered = row is not None and not row["dropped_by"]
                state = f"{disk.mode}, {self.free(disk) / GIB} free, {self.said}"
                why = f"{seer.name} of {gib} GiB on {host}/{name} ({state})"
                if expected is not None:
                    assert offered == expected, self.told(f"{why}: expected {expected}, and it is {row}")

    @invariant()
    def no_promise_is_left_over(self):
        """Each lease has ended with its request, but for those whose outcome the other host cannot tell us."""
        for seer in self.hosts.values():
            if not (seer.running and seer.has_scheduler) or self.lost:
                continue
            for one in self.run(seer.client.call("scheduler", "candidates", topic="volume")):
                disk = DISKS[one["host"], one["backend"]]
                clear = self.takes_work(self.hosts[disk.host]) and self.reaches(seer, self.hosts[disk.host])
                if clear and disk.mode == "well" and disk.filesystem.name not in self.uncertain:
                    assert not one["promised"], self.told(
                        f"{seer.name} keeps {one['promised'] / GIB} GiB of {one['host']}"
                    )

    @invariant()
    def records_agree_with_disks(self):
        """Nothing is left half made, and what is recorded is there, on disks that work and have been left alone."""
        for host in self.hosts.values():
            if not host.running or self.said.get(host.name) == "stopped":
                continue
            records = host.runtime.group.services["volume"].manager.records
            rows = self.run(host.store.aread(records.volumes))
            for disk in [disk for disk in DISKS.values() if disk.host == host.name]:
                mine = {row.name: row.state for row in rows if row.backend == disk.name}
                if disk.mode != "well" or disk.filesystem.name in self.uncertain or self.lost:
                    continue
                expected = dict.fromkeys(disk.volumes, "available")
                assert mine == expected, self.told(f"records of {host.name}/{disk.name}: {mine}, there is {expected}")

    # ---------------------------------------------------------------- the end

    def teardown(self):
        for disk in DISKS.values():
            disk.set("well")

        async def end():
            for host in self.hosts.values():
                if host.running:
                    await host.stop()

        try:
            self.run(end())
        finally:
            self.runner.close()
            shutil.rmtree(self.directory)
            gc.collect()


TestPlacement = PlacementStateMachine.TestCase
TestPlacement.settings = settings(
    max_examples=EXAMPLES or 7,
    stateful_step_count=STEPS,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    # Threads make a run another one each time: what fails is told step by step, and not made small.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestPlacement = pytest.mark.timeout(0 if EXAMPLES else 300)(TestPlacement)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
