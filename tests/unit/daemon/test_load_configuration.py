import pytest

from ostler.config.paths import Paths
from ostler.daemon.load_configuration import load_configuration
from ostler.errors import ConfigurationError

MODULE = """
from ostler import Field, Manager, ManagerOptions, Secret

class Lamp(Manager):
    class Options(ManagerOptions):
        key: Secret = Field(help="A key")

    def __init__(self, environment):
        raise AssertionError("a check builds nothing")
"""


@pytest.fixture
def paths(tmp_path):
    found = Paths.find(str(tmp_path), {})
    found.config_file.parent.mkdir(parents=True)
    return found


def configure(paths, text, name="ostler.toml"):
    target = paths.config_file.with_name(name) if name == "ostler.toml" else paths.config_file.parent / "conf.d" / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)


def test_without_any_file_there_are_the_defaults(paths) -> None:
    assert load_configuration(paths, offline=True).configuration.services == {}


def test_a_check_touches_neither_state_nor_sockets(paths) -> None:
    configure(paths, '[services.volume]\nmanager = "volume"\n')
    load_configuration(paths, offline=True)
    assert not paths.state_dir.exists()
    assert not paths.runtime_dir.exists()


def test_problems_of_all_files_come_at_once_with_their_places(paths) -> None:
    configure(paths, "[daemn]\nhost = 3\n")
    configure(paths, "[log]\nlevel = 'loud'\n", "10-log.toml")
    configure(paths, "[store\n", "20-store.toml")
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(paths, offline=True)
    text = "\n".join(map(str, caught.value.problems))
    for place in ("ostler.toml:1:", "10-log.toml:2:", "20-store.toml:1:"):
        assert place in text


def test_the_command_line_wins_over_the_files(paths) -> None:
    configure(paths, "[log]\nlevel = 'warning'\n")
    assert load_configuration(paths, ['log.level="debug"'], offline=True).configuration.log.level == "debug"


def test_credentials_are_read_for_a_start_and_not_for_a_check(paths, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(paths.root))
    (paths.root / "keyed_lamp.py").write_text(MODULE)
    configure(paths, '[services.lamp]\nmanager = "keyed_lamp:Lamp"\nkey = {credential = "key"}\n')
    assert list(load_configuration(paths, offline=True).configuration.services) == ["lamp"]
    with pytest.raises(ConfigurationError, match='credential "key" not found'):
        load_configuration(paths)


def test_a_reload_imports_no_plugin_anew_and_works_on_a_copy_of_the_host(paths) -> None:
    first = load_configuration(paths)
    configure(paths, "[plugins]\ndisabled = ['scheduler']\n")
    second = load_configuration(paths, plugins=first.plugins)
    before, after = ({row.name: row for row in each.plugins.statuses()} for each in (first, second))
    assert before["volume"] == after["volume"]
    assert (before["scheduler"].state, after["scheduler"].state) == ("loaded", "disabled")
    first.plugins.adopt(second.plugins)
    assert {row.name: row for row in first.plugins.statuses()} == after


def test_a_pin_for_a_topic_that_no_service_here_has_is_a_warning(paths) -> None:
    pins = '[messaging]\nrpc_pins = { volum = "1.0", "ostler" = "1.0", "volume.admin" = "auto", elsewhere = "1.0" }\n'
    configure(paths, pins + '[services.volume]\nmanager = "volume"\n')
    volum, elsewhere = load_configuration(paths, offline=True).warnings
    assert (
        volum == "messaging.rpc_pins has volum, but no service on this host has the topic volum; did you mean 'volume'?"
    )
    assert "elsewhere" in elsewhere
