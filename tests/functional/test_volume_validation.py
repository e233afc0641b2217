"""What a volume service refuses, with the real daemon: by name, at the door, with nothing left behind."""

from __future__ import annotations

import itertools
import os
import pty
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemon_process import NOBODY, OSTLER, DaemonProcess, as_nobody, cannot_become_nobody, wait_for

VOLUME = """
[services.scheduler]
manager = "scheduler"
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "{driver}"
path = "{root}/volumes"
reserve = "0"
image_directories = ["{root}/images"]
"""
VOLUME_OF = VOLUME.replace("{root}", "{0}").replace("{driver}", "file")
NAME_HINT = "1 to 63 letters, digits"


@pytest.fixture
def volumes(make_daemon) -> Callable[..., DaemonProcess]:
    """Return a function that starts a daemon with a volume and a scheduler service."""

    def start(driver: str = "file", *, before: list[str] | None = None) -> DaemonProcess:
        daemon: DaemonProcess = make_daemon(VOLUME.replace("{driver}", driver))
        if before:
            daemon.give_to_nobody()
        return daemon.start(before=before or [])

    return start


def as_nobody_of(daemon: DaemonProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command as a user who is not the daemon's."""
    command = [*as_nobody(), str(OSTLER), "--root", str(daemon.root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=60)


def there_is(daemon: DaemonProcess) -> tuple[list[str], object, object]:
    """Return every file of the backend, every record of a volume, every record of a snapshot."""
    files = [name for name in daemon.files() if name.startswith("volumes")]
    return files, daemon.call("volume", "list_volumes"), daemon.call("volume", "list_snapshots")


def refused(daemon: DaemonProcess, wanted: dict[tuple[str, ...], tuple[int, str]]) -> None:
    """Type each command; it fails with its exit code and says its text, and all of them together change nothing."""
    before = there_is(daemon)

    def type_it(words: tuple[str, ...]) -> str:
        code, text = wanted[words]
        said = daemon.command("volume", *words, check=code).stderr
        return "" if text in said and said.startswith("ostler: ") else f"{words}: {said}"

    with ThreadPoolExecutor(4) as threads:
        assert not list(filter(None, threads.map(type_it, wanted)))
    assert there_is(daemon) == before
    assert "Traceback" not in daemon.log


def test_names_and_sizes_that_can_never_be_are_refused_by_name(volumes) -> None:
    names = ["a/b", "..", ".", "", "x" * 64, "a b", "ä", "../../etc/cron.d/x", "a\nb", "a@b"]
    sizes = {
        "-1": (2, '"-1" is below zero'),
        "0": (2, "0 is not a valid volume size"),
        "ten": (2, '"ten" is not a valid size'),
        "1e3": (2, '"1e3" is not a valid size'),
        "1.5": (2, "not a whole number of bytes"),
        "9" * 30: (2, "too large"),
        "900PiB": (1, "no backend of volume for 900PiB"),
    }
    refused(
        volumes(),
        {
            **{("create", name, "--size", "1MiB"): (2, NAME_HINT) for name in names},
            **{("create", "data", "--size", size): said for size, said in sizes.items()},
            ("create", "data", "--size", "900PiB", "--backend", "local"): (1, "has no space for 900PiB"),
            ("create", "data"): (2, "size"),
            ("create", "data", "--size", "1MiB", "--backend", "attic"): (2, "available: local"),
        },
    )


def test_images_that_cannot_be_used_are_refused_by_name(volumes, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "disk.qcow2").write_bytes(b"QFI\xfb" + bytes(600))
    (tmp_path / "large").write_bytes(b"x" * 8192)
    create = ("create", "data", "--from")
    refused(
        volumes(),
        {
            (*create, str(tmp_path / "missing")): (2, "No such file or directory"),
            (*create, str(tmp_path / "folder")): (2, "is a directory"),
            (*create, str(tmp_path / "pipe")): (2, "is not a regular file"),
            (*create, "/dev/null"): (2, "is not a regular file"),
            (*create, str(tmp_path / "disk.qcow2")): (2, "has the unsupported format qcow2"),
            (*create, str(tmp_path / "large"), "--size", "4KiB"): (2, "which is larger than 4KiB"),
            (*create, str(tmp_path / "large"), "--source", "other"): (2, "at most one origin"),
        },
    )


@pytest.mark.root
def test_an_image_that_the_daemon_may_not_read_is_refused_by_name(volumes) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    daemon = volumes(before=as_nobody())
    image = daemon.root / "images" / "image"
    image.parent.mkdir(mode=0o755)
    image.write_bytes(b"x" * 4096)
    image.chmod(0o600)
    refused(daemon, {("create", "data", "--from", str(image)): (2, "Permission denied")})
    assert (
        "allow the daemon's user to read it"
        in daemon.command("volume", "create", "x", "--from", str(image), check=2).stderr
    )


@pytest.mark.root
def test_a_caller_gets_its_own_files_and_none_that_only_the_daemon_may_read(volumes) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    daemon = volumes()
    daemon.make_traversable()
    daemon.configure(f'[access]\noperator = ["{NOBODY}"]\n' + VOLUME_OF.format(daemon.root))
    daemon.command("reload")
    secret, own = daemon.root / "secret", daemon.root / "own"
    secret.write_bytes(b"SECRET" * 100)
    secret.chmod(0o600)
    own.write_bytes(b"MINE" * 1000)
    own.chmod(0o600)
    os.chown(own, NOBODY, NOBODY)
    denied = as_nobody_of(daemon, "volume", "create", "loot", "--from", str(secret))
    assert (denied.returncode, "Permission denied" in denied.stderr) == (2, True), denied.stderr
    by_path = as_nobody_of(daemon, "call", "volume", "create_volume", "name=loot", f"image={secret}")
    assert (by_path.returncode, "is not in an image directory" in by_path.stderr) == (2, True), by_path.stderr
    done = as_nobody_of(daemon, "volume", "create", "mine", "--from", str(own))
    assert done.returncode == 0, done.stderr
    assert (daemon.root / "volumes" / "volumes" / "mine").read_bytes().startswith(b"MINE" * 1000)
    assert not (daemon.root / "volumes" / "volumes" / "loot").exists()


def test_what_the_state_of_things_forbids_is_refused_by_name(volumes) -> None:
    daemon = volumes()
    daemon.command("volume", "create", "data", "--size", "2MiB")
    daemon.command("volume", "snapshot", "create", "data", "monday")
    refused(
        daemon,
        {
            ("create", "data", "--size", "1MiB"): (1, "volume data already exists"),
            ("create", "copy", "--source", "nothing"): (1, "volume nothing not found"),
            ("create", "copy", "--source", "data", "--size", "1MiB"): (2, "which is larger than 1MiB"),
            ("create", "copy", "--snapshot", "tuesday"): (1, "snapshot tuesday not found"),
            ("create", "copy", "--snapshot", "data@tuesday"): (1, "snapshot data@tuesday not found"),
            ("extend", "data", "1MiB"): (2, "has 2MiB, and the new size 1MiB is not larger"),
            ("extend", "data", "2MiB"): (2, "has 2MiB, and the new size 2MiB is not larger"),
            ("extend", "data", "ten"): (2, '"ten" is not a valid size'),
            ("extend", "data", "900PiB"): (1, "local has no space"),
            ("extend", "nothing", "4MiB"): (1, "volume nothing not found"),
            ("delete", "data"): (1, "has 1 snapshot, so it cannot be deleted"),
            ("delete", "nothing"): (1, "volume nothing not found"),
            ("detach", "data"): (1, "volume data is available, so it cannot be detached"),
            ("snapshot", "create", "data", "monday"): (1, "snapshot data@monday already exists"),
            ("snapshot", "create", "data", "a/b"): (2, NAME_HINT),
            ("snapshot", "delete", "data", "tuesday"): (1, "snapshot data@tuesday not found"),
        },
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices")
def test_a_volume_in_use_is_not_deleted_extended_copied_or_attached_again(volumes) -> None:
    daemon = volumes()
    daemon.command("volume", "create", "data", "--size", "4MiB")
    device = daemon.command("volume", "attach", "data").stdout.strip()
    try:
        in_use = (1, "volume data is in-use")
        refused(
            daemon,
            {
                ("delete", "data"): in_use,
                ("extend", "data", "8MiB"): in_use,
                ("attach", "data"): in_use,
                ("create", "copy", "--source", "data"): in_use,
                ("snapshot", "create", "data", "monday"): in_use,
            },
        )
        assert "`ostler volume detach data`" in daemon.command("volume", "delete", "data", check=1).stderr
        # Somebody has it open: detach says who to look for, and it stays attached.
        with Path(device).open("rb"):
            assert "is mounted or open" in daemon.command("volume", "detach", "data", check=1).stderr
        assert daemon.json("volume", "show", "data")["state"] == "in-use"
    finally:
        daemon.command("volume", "detach", "data", check=None)
        if Path("/sys/block", Path(device).name, "loop/backing_file").exists():
            subprocess.run(["losetup", "--detach", device], check=False)
    daemon.command("volume", "delete", "data")


# ------------------------------------------------------------------------------------------------------ long copies


def place_image(daemon: DaemonProcess) -> Path:
    """Make an image with data in three hundred places: six seconds of work for a slow driver, and next to no room."""
    path = daemon.root / "images" / "image"
    path.parent.mkdir()
    with path.open("wb") as file:
        for number in range(300):
            file.seek(number * 2**20)
            file.write(b"data" * 1024)
        file.truncate(300 * 2**20)
    return path


def creating(daemon: DaemonProcess, image: Path, **options: object) -> subprocess.Popen[bytes]:
    command = [OSTLER, "--root", str(daemon.root), "volume", "create", "data", "--from", str(image)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]


def state(daemon: DaemonProcess) -> list[str]:
    return [row["state"] for row in daemon.call("volume", "list_volumes")]


def test_a_long_copy_shows_progress_and_ctrl_c_takes_it_back(volumes) -> None:
    daemon = volumes("slow_copy_driver:SlowCopyDriver")
    image = place_image(daemon)
    before = there_is(daemon)
    terminal, far = pty.openpty()
    command = creating(daemon, image, stderr=far, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(far)
    shown = b""
    while not (b"copying" in shown and b"%" in shown):
        shown += os.read(terminal, 65536)
    assert state(daemon) == ["creating"]
    command.send_signal(signal.SIGINT)
    for _ in itertools.count():
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # it has closed its end
            break
    os.close(terminal)
    assert command.wait(20) == 130
    assert b"Traceback" not in shown
    wait_for(
        lambda: there_is(daemon) == before, "nothing to be left of it", more=lambda: (there_is(daemon), daemon.log)
    )
    daemon.command("volume", "create", "data", "--size", "1MiB")


def test_a_copy_in_which_the_daemon_is_killed_goes_on_at_its_next_start(volumes) -> None:
    daemon = volumes("slow_copy_driver:SlowCopyDriver")
    image = place_image(daemon)
    daemon.command("volume", "create", "other", "--size", "1MiB")
    command = creating(daemon, image, stderr=subprocess.PIPE)
    (operation,) = wait_for(
        lambda: [row["id"] for row in daemon.json("operation", "list") if row["done"]], "the copy to begin"
    )
    watching = subprocess.Popen(
        [OSTLER, "--root", str(daemon.root), "operation", "watch", operation], stdout=subprocess.PIPE
    )
    assert watching.stdout is not None
    assert b"running" in watching.stdout.readline()
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    seen = len(daemon.notices.received)
    daemon.start(wait=False)
    daemon.wait_ready(seen)
    said = command.communicate(timeout=60)[1].decode()
    assert command.returncode == 0, said
    watched = watching.communicate(timeout=60)[0].decode()
    assert "succeeded" in watched.splitlines()[-1]
    assert (daemon.root / "volumes" / "volumes" / "data").read_bytes() == image.read_bytes()
    assert [(row["name"], row["state"]) for row in daemon.call("volume", "list_volumes")] == [
        ("data", "available"),
        ("other", "available"),
    ]
    (row,) = [row for row in daemon.json("operation", "list") if row["id"] == operation]
    assert (row["attempts"], row["interruptions"]) == (2, 1)
