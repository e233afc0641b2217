"""Small real file systems below a test's own directory: full, read-only, broken, and unmounted at the end."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

MIB = 1024 * 1024


def run(*command: str | Path) -> str:
    """Run a command of the machine; return what it prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


def cannot_mount(folder: Path) -> str:
    """Return why no small file system can be mounted here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root, to mount small file systems"
    try:
        disk = SmallDisk(folder / "tried", folder / "tried.image", 4)
    except OSError as error:
        return f"no loop-mounted ext4 here: {error}"
    disk.close()
    return ""


class SmallDisk:
    """An ext4 of its own, in a file on a loop device.

    Args:
        path: Where it is mounted; the directory is made.
        image: The file that holds it.
        size: MiB.
        options: Of `mkfs.ext4`, such as `-O ^has_journal`.
    """

    def __init__(self, path: Path, image: Path, size: int, *options: str) -> None:
        self.path = path
        self._image = image
        self._ballast = path / "ballast"
        path.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(size * MIB)
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", *options, image)
        self._device = run("losetup", "--find", "--show", image)
        try:
            run("mount", "-o", "errors=continue", self._device, path)
        except OSError:
            run("losetup", "--detach", self._device)
            raise
        (path / "lost+found").rmdir()

    def fill(self, leave: int = 0) -> None:
        """Fill it to the last block, but for `leave` bytes."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (MIB, 4096, 512):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            if leave:
                file.truncate(max(0, file.tell() - leave))
            os.fsync(file.fileno())

    def free(self) -> None:
        """Remove what `fill` has written."""
        self._ballast.unlink(missing_ok=True)

    def remount(self, how: str) -> None:
        """Mount it `ro` or `rw`: the whole file system, as the kernel does after an error, even when files are open."""
        run("mount", "-o", f"remount,{how}", self.path)

    def report_error(self) -> None:
        """Have the kernel find an error in it, after which it is read-only until it is mounted once more."""
        self.remount("errors=remount-ro")
        Path(f"/sys/fs/ext4/{Path(self._device).name}/trigger_fs_error").write_text("test", encoding="ascii")

    def mount_again(self) -> None:
        """Unmount it, which fails while files are open, and mount it."""
        run("umount", self.path)
        run("mount", "-o", "errors=continue", self._device, self.path)

    def close(self) -> None:
        """Unmount it, whoever still uses it. May be called twice."""
        if self._device:
            subprocess.run(["umount", "--lazy", self.path], capture_output=True, check=False, timeout=30)
            subprocess.run(["losetup", "--detach", self._device], capture_output=True, check=False, timeout=30)
            self._device = ""
        self._image.unlink(missing_ok=True)


class BrokenDisk(SmallDisk):
    """An ext4 whose device reports errors: its image is in a tmpfs, which is filled while the device is to fail.

    Blocks that were never written have no memory in the tmpfs; a write to them ends with an error of the device. A loop
    device reports what it has written in part as written: what is on it after it was unmounted says nothing.

    Args:
        path: Where it is mounted.
        store: Where the tmpfs is mounted.
        size: MiB.
    """

    def __init__(self, path: Path, store: Path, size: int) -> None:
        store.mkdir(parents=True, exist_ok=True)
        self._store = store
        run("mount", "-t", "tmpfs", "-o", f"size={2 * size}m", "tmpfs", store)
        try:
            super().__init__(path, store / "image", size, "-O", "^has_journal")
        except OSError:
            run("umount", "--lazy", store)
            raise

    def break_writes(self) -> None:
        """Have the device report an error for each block that is written for the first time."""
        with (self._store / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * MIB)
            except OSError:
                pass

    def mend(self) -> None:
        """Have the device work again."""
        (self._store / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount both."""
        self.mend()
        super().close()
        subprocess.run(["umount", "--lazy", self._store], capture_output=True, check=False, timeout=30)
