"""A daemon without process and sockets: its real parts, on a loop whose time is the test's, beside others."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import simulated_disks
from simulated_network import SimulatedNetwork

from ostler import hookimpl
from ostler.aio import LoopQueue, Worker
from ostler.config import load_text
from ostler.daemon.active_configuration import ActiveConfiguration
from ostler.daemon.connectivity.messaging_stack import MessagingStack
from ostler.daemon.connectivity.peer_links import PeerLinks
from ostler.daemon.control.control_endpoint import ControlEndpoint
from ostler.daemon.control.monitoring_sources import MonitoringSources
from ostler.daemon.daemon_parts import DaemonParts
from ostler.messaging import AsyncClient
from ostler.messaging.tcp.curve import generate_keys
from ostler.operations import Operations
from ostler.plugins import in_memory_plugin
from ostler.service import HostServices, Runtime
from ostler.service.resolve import resolve_configuration
from ostler.store import Store
from ostler.testing.memory_transport import MemoryTransport
from ostler.testing.virtual_time import VirtualTimeLoop, virtual_clock

# private: _replaced: threads that wait for a simulated disk
# private: _curve: simulated links take the place of those that are made of it

REPORT_INTERVAL = 2.0
CAPABILITY_INTERVAL = 10.0
CALL_TIMEOUT = 5.0
"""Seconds after which a driver that does not answer is stuck."""

_QUIET = 0.003
"""Real seconds for which nothing moves before time goes on, while a thread has been woken and may not have run yet."""


class ModelLoop(VirtualTimeLoop):
    """A virtual loop that knows which threads wait for it, and need not be waited for."""

    def _work_in_progress(self):
        pools = {thread.pool for thread in threading.enumerate() if isinstance(thread, Worker)}
        found = {(id(pool), number) for pool in pools for number in self._running_work(pool)}
        for probe in self._probes:
            found.update(probe())
        return frozenset(found)

    @staticmethod
    def _running_work(pool):
        numbers = pool.in_flight_numbers()
        waiting = len(pool._replaced) + simulated_disks.HELD[pool]
        return numbers if len(numbers) > waiting else frozenset()

    def _wait_for_work(self):
        events = super()._wait_for_work()
        if events or not any(thread.pool._replaced for thread in threading.enumerate() if isinstance(thread, Worker)):
            return events
        if events := self._real_selector.select(_QUIET):
            return events
        return super()._wait_for_work() if self._work_in_progress() else []


class SimulatedPeerLinks(PeerLinks):
    """The links of a daemon to its peers, over the simulated network."""

    network: SimulatedNetwork
    hosts: dict

    def _make_transport(self, address, key):
        target = self.hosts[address.rpc_address.removeprefix("tcp://").partition(":")[0]]
        return self.network.transport(
            self._router.host, target.name, target.transport, self.hosts[self._router.host].keys.public
        )


class SimulatedHost:
    """One host: a volume service on simulated disks, perhaps a scheduler, and the daemon's topic. On the loop.

    Args:
        name: Its name.
        folder: Where its database and key are; a start after a stop goes on with them.
        hosts: All hosts by name; it is added.
        network: The links between them.
        scheduler: Whether it has a scheduler.
    """

    def __init__(self, name: str, folder: Path, hosts: dict, network: SimulatedNetwork, *, scheduler: bool):
        self.name, self.directory, self.hosts, self.network = name, folder, hosts, network
        self.has_scheduler = scheduler
        self.keys = generate_keys()
        self.transport = MemoryTransport()
        self.running = False
        folder.mkdir()
        key = folder / "key"
        key.write_text(self.keys.secret, encoding="ascii")
        key.chmod(0o600)
        hosts[name] = self

    def _configuration(self) -> str:
        others = [host for host in self.hosts.values() if host is not self]
        lines = [f'[daemon]\nhost = "{self.name}"', "[network]", f'secret_key = {{file = "{self.directory}/key"}}']
        lines += ["[network.keys]", *(f"{other.name} = '{other.keys.public}'" for other in others)]
        lines += [f'[network.peers.{other.name}]\nrpc = "tcp://{other.name}:7890"' for other in others]
        admins = ", ".join(f'"key:{other.name}"' for other in others)
        lines += ["[access]", f"admin = [{admins}]"]
        times = f"report_interval = {REPORT_INTERVAL}\ncapability_interval = {CAPABILITY_INTERVAL}\ndown_time = 8"
        lines += [f'[services.volume]\nmanager = "volume"\nplacement_attempts = 20\ndrain_timeout = 1\n{times}']
        for disk in simulated_disks.DISKS.values():
            if disk.host == self.name:
                lines += [f'[services.volume.drivers.{disk.name}]\ndriver = "disk"\ncall_timeout = {CALL_TIMEOUT}']
                lines += [
                    f"copy_budget = {CALL_TIMEOUT}\ncapability_timeout = 8\nretry_interval = 1\nmax_retry_interval = 1"
                ]
        if self.has_scheduler:
            lines += [f'[services.scheduler]\nmanager = "scheduler"\nseed = 1\n{times}']
        return "\n".join(lines)

    async def start(self) -> None:
        loop, clock = asyncio.get_running_loop(), virtual_clock()
        assembly = resolve_configuration(load_text(self._configuration()), {}, entry_points=_plugins())
        options, inbox = assembly.configuration, LoopQueue(loop)
        self.store = store = Store.open(
            self.directory / "ostler.db", clock=clock, synchronous="OFF", migrations=assembly.plugins.migrations()
        )
        loop.watch(lambda: [("store", id(store))] if store.current_job() or store.stats()["queued"] else [])
        self.messages = messages = MessagingStack(options, self.transport, clock, inbox)
        dispatcher, client = messages.dispatcher, messages.client
        operations = Operations(store, dispatcher, client.publish)
        dispatcher.set_operations(operations)
        self.runtime = runtime = Runtime(
            assembly.specs,
            HostServices(self.name, clock, inbox, store, dispatcher, client, operations, messages.notifications),
            router=messages.router,
            on_end=lambda reason: None,
            on_change=lambda service: None,
        )
        parts = DaemonParts(store, messages, audit_service=None, runtime=runtime)
        rest = dict.fromkeys(("reloader", "make_dump", "start_finished"))
        monitoring = MonitoringSources(status=None, stale_signals=list, loop_monitor=lambda: None, health=None)
        active = ActiveConfiguration(assembly)
        messages.start(ControlEndpoint(parts, plugins=assembly.plugins, active=active, monitoring=monitoring, **rest))
        await runtime.mark_gone(options.network.peers)
        SimulatedPeerLinks.network, SimulatedPeerLinks.hosts = self.network, self.hosts
        messages.peer_links = SimulatedPeerLinks(
            options, messages._curve, messages.router, store, clock, messages.client.upgrades.invalidate,
            runtime.state_notifier.notify_peer,
            messages.identities.own_identity,
        )  # fmt: skip
        self.client = AsyncClient(transport=self.transport, clock=clock)
        await runtime.start()
        await messages.wait_for_peers(1.0)
        self.running = True

    async def stop(self) -> None:
        self.running = False
        await self.client.close()
        await self.runtime.stop(2.0)
        await self.messages.close()
        await asyncio.get_running_loop().run_in_executor(None, self.store.close)

    async def crash(self) -> None:
        """End as by SIGKILL: connections end at once, and nothing that was not done yet is done any more."""
        self.running = False
        for other in self.hosts.values():
            for pair in ((self.name, other.name), (other.name, self.name)):
                self.network.lose(pair, "the other end was killed")
        while self.store.current_job() or self.store.stats()["queued"]:
            await asyncio.sleep(0)
        saved = self.directory / "saved"
        saved.mkdir()
        for file in self.directory.glob("ostler.db*"):
            if file.is_file():
                shutil.copy(file, saved)
        disks = [disk for disk in simulated_disks.DISKS.values() if disk.host == self.name]
        kept = [dict(disk.volumes) for disk in disks]
        await self.stop()
        for file in self.directory.glob("ostler.db*"):
            if file.is_file():
                file.unlink()
        for file in saved.iterdir():
            file.rename(self.directory / file.name)
        saved.rmdir()
        for disk, volumes in zip(disks, kept, strict=True):
            disk.volumes = volumes


class _Plugin:
    """Brings the drivers on simulated disks."""

    __name__ = "disks"

    @hookimpl
    def ostler_drivers(self):
        return {("volume", "disk"): simulated_disks.DiskDriver}


def _plugins():
    import ostler_scheduler.plugin
    import ostler_volume.plugin

    return [
        in_memory_plugin("ostler-volume", ostler_volume.plugin),
        in_memory_plugin("ostler-scheduler", ostler_scheduler.plugin),
        in_memory_plugin("disks", _Plugin()),
    ]
