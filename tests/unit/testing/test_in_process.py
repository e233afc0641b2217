import asyncio
import threading
import types

import pytest

from ostler import Context, Driver, DriverOptions, Durable, Field, Manager, ManagerOptions, exposed, hookimpl, periodic
from ostler.errors import ConfigurationError, NotPermitted, ServiceError
from ostler.messaging import Progress
from ostler.testing import FakeClock, host
from ostler.types import DriverState, ServiceState


class LampDriver(Driver):
    class Options(DriverOptions):
        colour: str = Field("white", help="Built anew for", reload="driver")

    def shine(self) -> str:
        return self.options.colour


class Lamp(Manager):
    driver_type = LampDriver

    class Options(ManagerOptions):
        greeting: str = Field("hello", help="What it says")

    done: threading.Event

    def init_host(self, service_id, added_to_cluster):
        self.done = threading.Event()
        self.id = service_id
        if self.options.greeting == "never":
            raise OSError("no light")

    @exposed(role="operator")
    def greet(self, ctx: Context) -> str:
        """Say something."""
        self.client.publish("greeted", {"by": ctx.peer.name})
        return self.options.greeting

    @exposed(role="operator")
    def hang(self, ctx: Context) -> None:
        """Wait until the test lets go."""
        self.done.wait(20)

    @exposed(role="operator")
    def count(self, ctx: Context) -> int:
        """Count to three, loudly."""
        for number in (1, 2, 3):
            ctx.progress(number, 3, f"number {number}")
        return 3

    @periodic(spacing=3600)
    def tick(self, ctx: Context) -> None:
        if self.options.greeting == "no tick":
            raise OSError("the clock is broken")

    def reset(self):
        if self.options.greeting == "no":
            raise ValueError("this greeting cannot be")


CONFIG = '[services.lamp]\nmanager = "lamp"\n'
DRIVER = CONFIG + '[services.lamp.drivers.desk]\ndriver = "led"\n'
PARTS = {"managers": {"lamp": Lamp}, "drivers": {("lamp", "led"): LampDriver}}


def lamp(config=CONFIG, **more):
    return host(config=config, **PARTS, **more)


def test_services_run_for_the_length_of_the_block_and_leave_no_thread() -> None:
    before = set(threading.enumerate())
    with lamp() as h:
        assert h.states() == {"lamp": ServiceState.UP}
        assert h.call("lamp", "greet") == "hello"
        assert isinstance(h.manager("lamp"), Lamp)
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("ostler-test")]
    assert left == []
    assert h.states() == {"lamp": ServiceState.STOPPED}


def test_plugins_are_modules_objects_or_names_and_no_other_is_loaded() -> None:
    class Plugin:
        @hookimpl
        def ostler_managers(self):
            return {"lamp": Lamp}

    module = types.ModuleType("lamp_plugin")
    with host(config=CONFIG, plugins=[module, Plugin()]) as h:
        assert h.call("lamp", "greet") == "hello"
    with host(config='[services.volume]\nmanager = "volume"\n', plugins=["ostler_volume.plugin"]) as h:
        assert h.states() == {"volume": ServiceState.UP}
    with pytest.raises(ConfigurationError, match="volume"), host(config='[services.volume]\nmanager = "volume"\n'):
        pass


def test_a_wrong_configuration_is_said_with_all_problems() -> None:
    with pytest.raises(ConfigurationError) as caught, lamp(CONFIG + "workers = 0\ngreting = 3\n"):
        pass
    assert len(caught.value.problems) == 2


def test_a_start_that_fails_says_why_and_leaves_nothing_behind(tmp_path) -> None:
    for _ in range(2):  # the second would find the database in use
        with pytest.raises(ServiceError, match="no light"), lamp(CONFIG + 'greeting = "never"\n', state=tmp_path):
            pass
    with lamp(state=tmp_path) as h:
        assert h.states() == {"lamp": ServiceState.UP}


def test_two_hosts_with_one_state_are_a_restart(tmp_path) -> None:
    with lamp(state=tmp_path) as h:
        first = h.manager("lamp").id
    with lamp(state=tmp_path) as h:
        assert h.manager("lamp").id == first


def test_callers_have_the_role_of_their_user() -> None:
    with lamp() as h, h.client(uid=4242) as stranger, pytest.raises(NotPermitted):
        stranger.call("lamp", "greet")


def test_the_last_progress_reaches_the_caller() -> None:
    seen: list[Progress] = []
    with lamp() as h, h.client() as client:
        assert client.on(on_progress=seen.append).call("lamp", "count") == 3
    assert seen[-1] == Progress(3, 3, "number 3")  # those in between may have been left out


def test_events_are_waited_for_and_chosen_by_pattern() -> None:
    with lamp() as h:
        h.call("lamp", "greet")
        h.call("lamp", "greet")
        assert len(h.events("lamp.testhost.greeted", count=2)) == 2
        assert h.events("lamp.other", count=0) == []


def test_a_periodic_task_is_run_at_once_and_its_error_is_the_tests() -> None:
    with lamp() as h:
        h.run_periodic("lamp", "tick")
        h.reload(CONFIG + 'greeting = "no tick"\n')
        with pytest.raises(AssertionError, match="the clock is broken"):
            h.run_periodic("lamp", "tick")
        with pytest.raises(AssertionError, match="no periodic task tock"):
            h.run_periodic("lamp", "tock")


def test_a_reload_does_what_the_daemons_does_drivers_included() -> None:
    with lamp(DRIVER) as h:
        h.wait_driver("lamp", "desk")
        assert h.driver("lamp", "desk").shine() == "white"
        h.reload(DRIVER.replace("\n[", '\ngreeting = "well"\n[', 1) + 'colour = "red"\n')
        h.wait_driver("lamp", "desk", DriverState.READY)
        assert h.driver("lamp", "desk").shine() == "red"
        assert h.call("lamp", "greet") == "well"


def test_a_reload_that_is_refused_changes_nothing_and_a_reset_that_fails_is_said() -> None:
    with lamp() as h:
        with pytest.raises(ConfigurationError):
            h.reload(CONFIG + "greeting = 3\n")
        assert h.call("lamp", "greet") == "hello"
        with pytest.raises(ServiceError, match="this greeting cannot be"):
            h.reload(CONFIG + 'greeting = "no"\n')


def test_the_status_is_that_of_service_show() -> None:
    with lamp() as h:
        status = h.status("lamp")
        assert (status.topic, status.host, status.here, status.enabled) == ("lamp", "testhost", True, True)
        assert h.store.check() == []


def test_a_clock_that_stands_still_holds_up_no_stop() -> None:
    with lamp(CONFIG + 'drain_timeout = "1s"\n', clock=FakeClock()) as h:
        calling = threading.Thread(target=lambda: h.client().cast("lamp", "hang"), name="caller")
        calling.start()
        calling.join()
        h.wait_for(lambda: h.service("lamp").in_progress(), "the work to begin")
        done = h.manager("lamp").done
    # Passing is the assertion: the host has stopped before the time limit of the test.
    done.set()


def test_waiting_in_vain_is_a_failed_test() -> None:
    with lamp() as h, pytest.raises(AssertionError, match="timed out waiting for a miracle"):
        h.wait_for(lambda: False, "a miracle", timeout=0.05)


def test_the_fixture_of_the_pytest_plugin_stops_its_hosts_at_the_end(ostler_host) -> None:
    h = ostler_host(config=CONFIG, **PARTS)
    assert h.call("lamp", "greet") == "hello"


class Painter(Manager):
    """Paints two coats; the second one when the test lets it."""

    acts: list[str] = []
    go_on = threading.Event()

    def act(self, what: str) -> str:
        self.acts.append(what)
        return what

    @exposed(durable=Durable(on_restart="resume"))
    def paint(self, ctx: Context) -> str:
        """Paint two coats."""
        ctx.step("first", self.act, "first")
        while not self.go_on.wait(0.005):
            ctx.check()
        return str(ctx.step("second", self.act, "second"))


@pytest.fixture
def painting():
    Painter.acts.clear()
    Painter.go_on.clear()
    with host(managers={"painter": Painter}, config='[services.paint]\nmanager = "painter"') as h:
        yield h
    Painter.go_on.set()


@pytest.mark.parametrize("crash", [True, False])
def test_an_operation_goes_on_over_a_restart_and_a_crash(painting, crash):
    operation = painting.submit("paint", "paint")
    painting.wait_for(lambda: Painter.acts and operation.refresh().steps, "the first coat")
    painting.restart(crash=crash)
    Painter.go_on.set()
    again = painting.operation(operation.id)
    assert again.result(20) == "second"
    assert Painter.acts == ["first", "second"]
    assert again.status.interruptions == int(crash)


def test_what_was_written_after_a_crash_is_not_there():
    with host(managers={"painter": Painter}, config='[services.paint]\nmanager = "painter"') as h:
        h.store.kv("test").set("before", 1)
        h.restart(crash=True)
        assert h.store.kv("test").get("before") == 1
        h.restart()
        assert h.store.kv("test").get("before") == 1


class Owner(Manager):
    """A manager that adds a periodic task and starts background tasks."""

    def init_host(self, service_id, added_to_cluster):
        self.polled, self.ended = [], threading.Event()
        self.periodic.add("poll a", lambda ctx: self.polled.append(ctx.method), spacing=3600)
        self.tasks.spawn("read", self.read)
        self.tasks.spawn("watch", self.watch)

    def read(self, stop):
        stop.wait(60)
        self.ended.set()

    async def watch(self):
        await asyncio.Event().wait()


def test_added_periodic_tasks_and_background_tasks_run_in_tests_too():
    with host(config='[services.owner]\nmanager = "owner"\n', managers={"owner": Owner}) as h:
        h.run_periodic("owner", "poll a")
        manager = h.manager("owner")
        assert manager.polled == ["poll a"]
        rows = [(row.name, row.kind, row.state) for row in h.status("owner").tasks]
        assert rows == [("read", "thread", "running"), ("watch", "coroutine", "running")]
    assert manager.ended.is_set()


class Forgetful(Manager):
    task: asyncio.Future[bool]

    @exposed(role="viewer")
    async def begin(self, ctx: Context) -> None:
        """Start a task that nobody ends."""
        type(self).task = asyncio.ensure_future(asyncio.Event().wait())


def test_a_task_that_a_manager_has_left_is_cancelled_at_the_end() -> None:
    with host(config='[services.lamp]\nmanager = "forgetful"', managers={"forgetful": Forgetful}) as h:
        h.call("lamp", "begin")
    assert Forgetful.task.cancelled()
