"""`ostler plugin install` and its relatives, with the real pip and wheels made by hand; nothing comes from an index."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_process import OSTLER, cannot_become_nobody

from ostler import Client
from support.wheels import make_plugin, make_wheel

pytestmark = pytest.mark.timeout(180)


class Installer:
    """The command, with a root and a directory of wheels of its own."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root, self.wheels = root, wheels
        self.plugins = root / "plugins"

    def __call__(self, verb: str, *words: str, check: int = 0, offline: bool = True) -> str:
        places = ["--offline", "--from", str(self.wheels)] if verb in ("install", "replay") and offline else []
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [OSTLER, "--root", self.root, "plugin", verb, *places, *words],
            capture_output=True, text=True, check=False, cwd=self.root, env=environ, timeout=150,
        )  # fmt: skip
        assert done.returncode == check, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def state(self) -> list[str]:
        """Return every name below the directory of plugins, and where the link leads."""
        if not self.plugins.exists():
            return []
        link = self.plugins / "current"
        names = [
            str(path.relative_to(self.plugins)) for path in self.plugins.rglob("*") if "__pycache__" not in str(path)
        ]
        return sorted([*names, str(link.readlink()) if link.is_symlink() else ""])

    def frozen(self) -> list[str]:
        return [line.split()[0] for line in self("freeze").splitlines() if "==" in line]


@pytest.fixture
def installer(tmp_path) -> Installer:
    (tmp_path / "root").mkdir()
    (tmp_path / "wheels").mkdir()
    return Installer(tmp_path / "root", tmp_path / "wheels")


def answer(daemon) -> str:
    with Client(root=str(daemon.root)) as client:
        return client.call("lamp", "answer")


def own_packages() -> list[str]:
    return sorted(path.name for path in Path(sys.prefix).glob("lib/python*/site-packages/*"))


def test_a_plugin_is_installed_with_what_it_needs_and_removed_with_it(installer) -> None:
    before = own_packages()
    make_wheel(installer.wheels, "lamp-protocol", "2.1", modules={"lamp_protocol": "SPEED = 3\n"})
    make_plugin(installer.wheels, "lamp", requires=["lamp-protocol>=2"], more="import lamp_protocol\n")
    heater = make_plugin(installer.wheels, "heater")
    assert "installed ostler-lamp 1.0" in installer("install", "ostler-lamp")
    installer("install", str(heater))
    assert installer.frozen() == ["lamp-protocol==2.1", "ostler-heater==1.0", "ostler-lamp==1.0"]
    assert "lamp-protocol was not asked for" in installer("remove", "--yes", "lamp-protocol", check=1)
    assert "removed lamp-protocol 2.1" in installer("remove", "--yes", "lamp")
    assert installer.frozen() == ["ostler-heater==1.0"]
    assert "ostler-lamp is not installed here" in installer("remove", "--yes", "ostler-lamp", check=1)
    assert own_packages() == before


def test_what_was_installed_before_keeps_its_version_if_that_is_possible(installer) -> None:
    make_wheel(installer.wheels, "lamp-protocol", "2.1", modules={"lamp_protocol": ""})
    make_plugin(installer.wheels, "lamp", requires=["lamp-protocol"])
    installer("install", "ostler-lamp")
    make_wheel(installer.wheels, "lamp-protocol", "2.2", modules={"lamp_protocol": ""})
    make_plugin(installer.wheels, "lamp", "1.1", requires=["lamp-protocol"])
    make_plugin(installer.wheels, "heater", requires=["lamp-protocol"])
    installer("install", "ostler-heater")
    assert installer.frozen() == ["lamp-protocol==2.1", "ostler-heater==1.0", "ostler-lamp==1.0"]
    make_plugin(installer.wheels, "heater", "1.1", requires=["lamp-protocol>=2.2"])
    assert "replaced lamp-protocol 2.1 by 2.2" in installer("install", "ostler-heater==1.1")
    assert installer.frozen() == ["lamp-protocol==2.2", "ostler-heater==1.1", "ostler-lamp==1.0"]


FAULTS = {
    "raises": ({"more": "1 / 0\n"}, "ZeroDivisionError"),
    "is killed": ({"more": "import os; os.kill(os.getpid(), 11)\n"}, "killed by SIGSEGV"),
    "lacks what it needs": ({"requires": ["no-such-package-anywhere"]}, "no-such-package-anywhere"),
    "needs another library than Ostler": (
        {"requires": ["msgspec<0.1"]},
        "lamp 1.0 depends on msgspec<0.1; this environment has msgspec ",
    ),
}


@pytest.mark.failure_mode("Plugins", "one that fails to import")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.failure_mode("Plugins", "an installation that fails, is killed, or meets another one")
def test_a_plugin_that_does_not_work_is_taken_back_whole(installer, fault) -> None:
    make_plugin(installer.wheels, "heater")
    installer("install", "ostler-heater")
    before = installer.state()
    how, said = FAULTS[fault]
    make_plugin(installer.wheels, "lamp", **how)
    assert said in installer("install", "ostler-lamp", check=1)
    assert installer.state() == before
    assert "heater" in installer("check")


def test_what_is_no_plugin_and_what_ostler_has_itself_are_refused(installer) -> None:
    make_wheel(installer.wheels, "lamp-protocol", modules={"lamp_protocol": ""})
    assert "is not a plugin of Ostler" in installer("install", "lamp-protocol", check=1)
    assert "the environment that Ostler itself is installed in" in installer("install", "msgspec", check=1)
    assert "found for no-such-plugin" in installer("install", "no-such-plugin", check=1)
    assert installer.state() == sorted(["", "lock"])


def test_a_directory_is_built_and_a_new_build_of_the_same_version_replaces_it(installer) -> None:
    source = installer.root / "source"
    source.mkdir()
    # A build backend in the tree, so that none is fetched: it copies the wheel that was made before.
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "copying"\nbackend-path = ["."]\n'
        '[project]\nname = "ostler-lamp"\nversion = "1.0"\n'
    )
    (source / "copying.py").write_text(
        "import pathlib, shutil\n"
        "def build_wheel(directory, settings=None, metadata=None):\n"
        "    (wheel,) = pathlib.Path(__file__).parent.glob('*.whl')\n"
        "    shutil.copy(wheel, directory)\n"
        "    return wheel.name\n"
    )
    make_plugin(source, "lamp")
    assert "installed ostler-lamp 1.0" in installer("install", "./source")
    make_plugin(source, "lamp", more="# changed\n")
    assert "replaced ostler-lamp 1.0 by another build" in installer("install", "./source")


def test_a_frozen_set_is_installed_elsewhere_and_nothing_else_passes_for_it(installer, tmp_path) -> None:
    make_wheel(installer.wheels, "lamp-protocol", modules={"lamp_protocol": ""})
    make_plugin(installer.wheels, "lamp", requires=["lamp-protocol"])
    installer("install", "ostler-lamp")
    (tmp_path / "other").mkdir()
    other = Installer(tmp_path / "other", tmp_path / "copied")
    frozen = tmp_path / "frozen.txt"
    frozen.write_text(installer("freeze", "--wheels", str(other.wheels)))
    other("install", "-r", str(frozen))
    assert other("freeze") == frozen.read_text()
    assert "was not asked for" in other("remove", "--yes", "lamp-protocol", check=1)
    make_plugin(other.wheels, "lamp", requires=["lamp-protocol"], more="# tampered with\n")
    (tmp_path / "third").mkdir()
    third = Installer(tmp_path / "third", other.wheels)
    assert "ostler-lamp 1.0 is not what was recorded" in third("install", "-r", str(frozen), check=1)
    frozen.write_text("ostler-lamp\n")
    assert "`ostler plugin freeze`" in third("install", "-r", str(frozen), check=2)


@pytest.mark.failure_mode("Plugins", "plugins of another Python")
def test_a_set_of_another_python_is_not_used_until_it_is_replayed(installer) -> None:
    make_plugin(installer.wheels, "lamp")
    installer("install", "ostler-lamp")
    (made,) = (installer.plugins / "sets").iterdir()
    earlier = made.with_name("000001.cpython-38")
    made.rename(earlier)
    (installer.plugins / "current").unlink()
    (installer.plugins / "current").symlink_to(f"sets/{earlier.name}")
    assert "lamp" not in installer("check")
    command = [OSTLER, "--root", installer.root, "check"]
    warned = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "they were installed for cpython-38" in warned.stdout + warned.stderr
    assert "ostler plugin replay" in warned.stdout + warned.stderr
    installer.wheels.joinpath("ostler_lamp-1.0-py3-none-any.whl").unlink()
    installer("replay")  # from the wheels that were kept
    assert "lamp" in installer("check")


@pytest.mark.failure_mode("Plugins", "an installation that fails, is killed, or meets another one")
def test_nothing_is_left_of_an_installation_that_was_killed(installer) -> None:
    make_plugin(installer.wheels, "lamp")
    (installer.plugins / ".new" / "set" / "site-packages").mkdir(parents=True)
    assert "lamp" not in installer("check")
    installer("install", "ostler-lamp")
    assert not (installer.plugins / ".new").exists()


@pytest.mark.root
@pytest.mark.failure_mode("State", "disk full and then not")
@pytest.mark.failure_mode("Plugins", "an installation that fails, is killed, or meets another one")
def test_a_full_disk_takes_nothing_away(installer) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    make_plugin(installer.wheels, "heater")
    make_plugin(installer.wheels, "lamp", more=f"# {'x' * 500_000}\n")
    installer.plugins.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k,mode=755", "tmpfs", installer.plugins], check=True)
    try:
        installer("install", "ostler-heater")
        before = installer.state()
        assert "No space left on device" in installer("install", "ostler-lamp", check=1)
        assert installer.state() == before
        assert "heater" in installer("check")
    finally:
        subprocess.run(["umount", installer.plugins], check=True)


@pytest.mark.failure_mode("Plugins", "an installation that fails, is killed, or meets another one")
def test_two_installations_at_once_do_not_mix(installer) -> None:
    make_plugin(installer.wheels, "lamp")
    installer.plugins.mkdir()
    with (installer.plugins / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "changed by another process" in installer("install", "ostler-lamp", check=1)
    installer("install", "ostler-lamp")


@pytest.mark.root
def test_plugins_that_another_user_could_have_written_are_not_used(installer) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    make_plugin(installer.wheels, "lamp")
    installer("install", "ostler-lamp")
    for spoil in (lambda: os.chown(installer.plugins, 65534, 65534), lambda: installer.plugins.chmod(0o777)):
        os.chown(installer.plugins, 0, 0)
        installer.plugins.chmod(0o755)
        assert "lamp" in installer("check")
        spoil()
        assert "lamp" not in installer("check")
        before = installer.state()
        assert str(installer.plugins) in installer("install", "ostler-lamp", check=78)
        assert installer.state() == before


@pytest.mark.failure_mode("Plugins", "one that is installed while the daemon runs")
def test_a_daemon_runs_installed_plugins_and_keeps_its_own_set(installer, make_daemon) -> None:
    daemon = make_daemon('[services.lamp]\nmanager = "lamp"\n')
    running = Installer(daemon.root, installer.wheels)
    make_plugin(running.wheels, "lamp")
    running("install", "ostler-lamp")
    daemon.start()
    assert answer(daemon) == "1.0"
    first = (running.plugins / "current").resolve()
    for version in ("1.1", "1.2", "1.3"):
        make_plugin(running.wheels, "lamp", version)
        running("install", f"ostler-lamp=={version}")
    assert first.is_dir(), "it is in use"
    assert len(list((running.plugins / "sets").iterdir())) == 3, "that, the current one and the one before"
    said = daemon.command("status", check=None).stdout
    assert "plugin lamp 1.0 is running, 1.3 is installed" in said
    daemon.stop()
    daemon.start()
    assert answer(daemon) == "1.3"
    make_plugin(running.wheels, "heater")
    running("install", "ostler-heater")
    assert not first.exists()
