import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ostler.config import Paths
from ostler.errors import ConfigurationError


def test_a_root_keeps_everything_below_one_folder():
    paths = Paths.find("/srv/o", {"STATE_DIRECTORY": "/var/lib/ostler"}, uid=0)
    assert paths.config_file == Path("/srv/o/etc/ostler.toml")
    assert paths.config_layers == (Path("/srv/o/etc/ostler.toml"), Path("/srv/o/etc/conf.d"))
    assert (paths.state_dir, paths.runtime_dir, paths.root) == (
        Path("/srv/o/state"),
        Path("/srv/o/run"),
        Path("/srv/o"),
    )
    assert paths.rpc_address == "ipc:///srv/o/run/rpc.sock"
    assert paths.events_address == "ipc:///srv/o/run/events.sock"
    assert paths.database == Path("/srv/o/state/ostler.db")


def test_a_root_may_come_from_the_environment_and_the_argument_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Paths.find(None, {"OSTLER_ROOT": "/srv/e"}, uid=7).root == Path("/srv/e")
    assert Paths.find("/srv/a", {"OSTLER_ROOT": "/srv/e"}, uid=7).root == Path("/srv/a")
    assert Paths.find("here", {}, uid=7).root == tmp_path / "here"


@pytest.mark.failure_mode("Machine", "started as root")
def test_root_gets_the_places_of_the_system():
    paths = Paths.find(None, {}, uid=0)
    assert [str(layer) for layer in paths.config_layers] == [
        "/usr/lib/ostler/conf.d",
        "/etc/ostler/ostler.toml",
        "/etc/ostler/conf.d",
        "/run/ostler/conf.d",
    ]
    assert (paths.state_dir, paths.runtime_dir) == (Path("/var/lib/ostler"), Path("/run/ostler"))


def test_directories_that_systemd_made_win():
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a"}
    paths = Paths.find(None, environ, uid=0)
    assert (paths.state_dir, paths.runtime_dir) == (Path("/var/lib/a"), Path("/run/a"))


def test_a_service_under_a_user_of_its_own_reads_the_configuration_of_the_system():
    environ = {"STATE_DIRECTORY": "/var/lib/ostler", "RUNTIME_DIRECTORY": "/run/ostler"}
    assert Paths.find(None, environ, uid=64321).config_file == Path("/etc/ostler/ostler.toml")
    assert Paths.find(None, {"RUNTIME_DIRECTORY": "/run/ostler"}, uid=64321).runtime_dir == Path("/run/ostler")


def test_a_unit_of_a_users_own_systemd_is_no_system_service():
    environ = {"HOME": "/home/a", "RUNTIME_DIRECTORY": "/run/user/7/ostler"}
    paths = Paths.find(None, environ, uid=7)
    assert paths.config_file == Path("/home/a/.config/ostler/ostler.toml")
    assert paths.runtime_dir == Path("/run/user/7/ostler")


def test_a_user_gets_the_xdg_places():
    environ = {
        "HOME": "/home/a",
        "XDG_CONFIG_HOME": "/c",
        "XDG_STATE_HOME": "/s",
        "XDG_RUNTIME_DIR": "/run/user/7",
    }
    paths = Paths.find(None, environ, uid=7)
    assert (paths.config_file, paths.state_dir, paths.runtime_dir) == (
        Path("/c/ostler/ostler.toml"),
        Path("/s/ostler"),
        Path("/run/user/7/ostler"),
    )
    relative = Paths.find(None, {"HOME": "/home/a", "XDG_STATE_HOME": "s"}, uid=7)
    assert (relative.state_dir, relative.runtime_dir) == (
        Path("/home/a/.local/state/ostler"),
        Path("/home/a/.local/state/ostler/run"),
    )


@pytest.mark.failure_mode("Machine", "started in an empty environment")
def test_started_in_an_empty_environment():
    assert Paths.find(None, {}, uid=0).state_dir == Path("/var/lib/ostler")
    with pytest.raises(ConfigurationError, match="--root"):
        Paths.find(None, {}, uid=2**31 - 7)  # a user that is in no list has no home


def test_a_socket_path_that_the_kernel_would_cut_off_is_refused():
    with pytest.raises(ConfigurationError, match="shorter path"):
        Paths.find("/" + "a" * 100, {}, uid=7)


def test_a_user_without_a_daemon_is_led_to_the_systems(tmp_path):
    own = Paths.find(None, {"HOME": str(tmp_path)}, uid=7)
    # The machine of a developer may run the system's daemon; then, and only then, is it meant.
    led = Paths.for_client(None, {"HOME": str(tmp_path)}, uid=7)
    assert led in (own, Paths.system({}))
    own.runtime_dir.mkdir(parents=True)
    own.rpc_socket.touch()
    assert Paths.for_client(None, {"HOME": str(tmp_path)}, uid=7) == own


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_home_that_is_closed_has_no_daemon_of_its_own():
    home = Path(tempfile.mkdtemp())  # 0700; `tmp_path` may be below such a folder itself
    (home / ".local").mkdir()
    os.seteuid(65534)
    try:
        paths = Paths.for_client(None, {"HOME": str(home)}, uid=65534)
    finally:
        os.seteuid(0)
        shutil.rmtree(home)
    assert paths in (Paths.find(None, {"HOME": str(home)}, uid=65534), Paths.system({}))


def test_paths_and_units_do_not_import_pydantic():
    program = "import sys; from ostler.config import Paths, parse_size; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
