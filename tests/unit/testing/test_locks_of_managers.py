"""Locks of managers, as a plugin's test sees them."""

import asyncio
import threading

import pytest

from ostler import Context, Deadlock, LockTimeout, Manager, exposed
from ostler.testing import host


class Volumes(Manager):
    def init_host(self, service_id, added_to_cluster):
        self.entered, self.done = threading.Event(), threading.Event()

    @exposed(role="operator")
    def work(self, ctx: Context, name: str, timeout: float | None = None) -> str:
        """Hold a lock until the test says so."""
        with self.locks.hold("volume-{name}", name=name, timeout=timeout):
            self.entered.set()
            self.done.wait(20)
            return name

    @exposed(role="operator")
    async def awork(self, ctx: Context, name: str) -> str:
        """Hold a lock on the loop."""
        async with self.locks.hold("volume-{name}", name=name):
            await asyncio.sleep(0)
            return name

    @exposed(role="operator")
    def nested(self, ctx: Context, name: str) -> str:
        """Hold a lock, and call a method that needs it."""
        with self.locks.hold("volume-{name}", name=name):
            return str(self.client.call("volume", "awork", name=name))

    @exposed(role="operator")
    async def anested(self, ctx: Context, name: str) -> str:
        """Do what `nested` does, on the loop."""
        await asyncio.sleep(0)
        async with self.locks.hold("volume-{name}", name=name):
            await asyncio.sleep(0)
            return str(await self.client.acall("volume", "awork", name=name))

    @exposed(role="operator")
    def cast_from_within(self, ctx: Context, name: str) -> None:
        """Hold a lock, and cast to a method that needs it, which waits for the end of this."""
        with self.locks.hold("volume-{name}", name=name):
            self.client.cast("volume", "awork", name=name)

    @exposed(role="operator")
    def forget(self, ctx: Context, name: str) -> None:
        """Take a lock and never release it."""
        self.locks.hold("volume-{name}", name=name).__enter__()

    @exposed(role="operator")
    def shared_by_cluster(self, ctx: Context, name: str) -> str:
        """Hold a lock of the cluster."""
        with self.locks.hold("volume-{name}", name=name, cluster=True):
            return name


CONFIG = '[services.volume]\nmanager = "volume"\n'


@pytest.fixture
def volumes():
    with host(config=CONFIG, managers={"volume": Volumes}) as running:
        yield running


def test_requests_exclude_each_other_and_the_holder_is_named(volumes):
    thread = threading.Thread(target=lambda: volumes.call("volume", "work", name="a"))
    thread.start()
    manager = volumes.manager("volume")
    assert manager.entered.wait(20)
    with pytest.raises(LockTimeout, match=r"lock volume-a of service volume .* held by volume\.work"):
        volumes.call("volume", "work", name="a", timeout=0)
    manager.done.set()
    thread.join(20)
    assert volumes.call("volume", "awork", name="a") == "a"


@pytest.mark.parametrize("method", ["nested", "anested"])
def test_a_method_that_calls_who_needs_its_lock_is_told_at_once(volumes, method):
    with pytest.raises(Deadlock, match=rf"volume\.awork .* waits for volume-a, which volume\.{method}"):
        volumes.call("volume", method, name="a")
    assert volumes.call("volume", "awork", name="a") == "a"


def test_a_cast_may_need_what_its_sender_holds(volumes):
    volumes.call("volume", "cast_from_within", name="a")
    assert volumes.call("volume", "awork", name="a") == "a"


def test_the_locks_of_a_request_end_with_it(volumes):
    volumes.call("volume", "forget", name="a")
    assert volumes.call("volume", "awork", name="a") == "a"


def test_a_restart_leaves_no_lock_of_the_cluster(tmp_path):
    with host(config=CONFIG, managers={"volume": Volumes}, state=tmp_path) as running:
        assert running.call("volume", "shared_by_cluster", name="a") == "a"
        running.restart(crash=True)
        assert running.call("volume", "shared_by_cluster", name="a") == "a"
