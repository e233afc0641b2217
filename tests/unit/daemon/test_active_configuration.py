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


def test_what_needs_a_restart_is_pending_until_the_service_was_restarted(resolve) -> None:
    active, new = ActiveConfiguration(resolve(LAMP)), resolve(CHANGED)
    assert [change.path for change in active.pending_restart(new.configuration)] == ["services.lamp.workers"]
    active.resolved = new
    assert [change.path for change in active.pending_restart(new.configuration)] == ["services.lamp.workers"]
    active.mark_service_restarted(SimpleNamespace(topic="lamp", spec=new.specs[0]))
    assert active.pending_restart(new.configuration) == []


def test_a_service_that_runs_as_before_leaves_its_options_pending(resolve) -> None:
    old, new = resolve(LAMP), resolve(CHANGED)
    active = ActiveConfiguration(old)
    active.resolved = new
    active.mark_service_restarted(SimpleNamespace(topic="lamp", spec=old.specs[0]))
    active.mark_service_restarted(None)
    assert [change.path for change in active.pending_restart(new.configuration)] == ["services.lamp.workers"]


def test_values_are_those_that_the_services_run_with(resolve) -> None:
    active = ActiveConfiguration(resolve(LAMP))
    running = active.resolved.specs[0].options.model_copy(update={"greeting": "well"})
    active.resolved = resolve(CHANGED)
    service = SimpleNamespace(topic="lamp", options=running, drivers=None)
    found = {each.path: each.value for each in active.effective_values([service])}
    assert found["services.lamp.greeting"] == "well"
    assert found["services.lamp.workers"] != 3
