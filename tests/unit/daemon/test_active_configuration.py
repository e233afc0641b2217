"""Which options are in effect: those of the last reload, or of the start where a restart is needed."""

from types import SimpleNamespace

import pytest

from ostler.config import load_text
from ostler.daemon.active_configuration import ActiveConfiguration
from ostler.plugins import in_memory_plugin
from ostler.service import resolve_configuration

from .conftest import Trouble, make_plugin

LAMP = '[services.lamp]\nmanager = "lamp"\n'
CHANGED = LAMP + 'workers = 3\ngreeting = "well"\n'


@pytest.fixture
def resolve():
    plugins = [in_memory_plugin("lamps", make_plugin(Trouble()))]
    return lambda text: resolve_configuration(load_text(text), {}, entry_points=plugins)


def paths(changes):
    return [(change.path, change.old, change.new) for change in changes]


@pytest.mark.failure_mode("Life", "an option that needs a new process")
def test_what_needs_a_new_process_is_pending_over_several_reloads(resolve) -> None:
    active = ActiveConfiguration(resolve('[daemon]\nhost = "one"\n' + LAMP))
    new = resolve('[daemon]\nhost = "two"\n' + CHANGED)
    assert paths(active.restart_changes(new.configuration)) == [("daemon.host", "one", "two")]
    assert active.pending_restart() == []
    active.commit(new)
    active.commit(resolve('[daemon]\nhost = "three"\n' + LAMP))
    assert paths(active.pending_restart()) == [("daemon.host", "one", "three")]
    active.commit(resolve('[daemon]\nhost = "one"\n' + LAMP))
    assert active.pending_restart() == []


def test_values_are_those_that_the_services_run_with(resolve) -> None:
    active = ActiveConfiguration(resolve('[daemon]\nhost = "one"\n' + LAMP))
    running = active.resolved.specs[0].options
    active.commit(resolve('[daemon]\nhost = "two"\n' + CHANGED))
    service = SimpleNamespace(topic="lamp", options=running, drivers=None)  # its restart waits
    found = {each.path: each.value for each in active.effective_values([service])}
    assert (found["services.lamp.greeting"], found["services.lamp.workers"]) == ("hello", 8)
    assert found["daemon.host"] == "one"


def test_services_that_come_and_go_are_among_the_values(resolve) -> None:
    active = ActiveConfiguration(resolve(LAMP))
    active.commit(resolve(LAMP.replace("services.lamp", "services.door")))
    found = {each.path for each in active.effective_values([])}
    assert "services.door.greeting" in found
    assert not [path for path in found if path.startswith("services.lamp")]
