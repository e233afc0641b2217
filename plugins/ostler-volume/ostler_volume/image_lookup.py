"""Finds the backends that can read an image by its path, and its size, before a backend is chosen."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, NamedTuple

from ostler import DriverError, OstlerError
from ostler_volume.driver import IMAGE
from ostler_volume.image_thread import resolve_path
from ostler_volume.volume_context import VolumeContext


class ImageLookup(NamedTuple):
    """The size of an image in bytes, and the backends that cannot read it, `HOST/BACKEND`."""

    size: int
    exclude: tuple[str, ...]


def look_up_image(context: VolumeContext, image: str) -> ImageLookup:
    """Return the size of an image, and the backends that cannot read it; one of those that can opens it once.

    Args:
        context: The backends.
        image: Its absolute path on this host.

    Raises:
        BadImage: No backend can read it, or it is not an image.
        DriverError: No backend that could read it responds now.
    """
    ready = [name for name in context.drivers.ready() if IMAGE in context.drivers[name].features]
    takers = [name for name in ready if _accepts_image(context.drivers[name], image)]
    exclude = tuple(f"{context.host}/{name}" for name in ready if name not in takers)
    failed: OstlerError | None = None
    # If no backend can read it, one is called nevertheless, for its error with the reason and the directories.
    for name in takers or ready[:1]:
        try:
            with context.drivers[name].open_image(image) as opened:
                return ImageLookup(opened.size, exclude if takers else ())
        except DriverError as error:  # this backend does not respond; another one may
            failed = error
    if failed is not None:
        raise failed
    return ImageLookup(0, ())


def _accepts_image(driver: Any, image: str) -> bool:
    try:
        directories = driver.image_directories()
    except DriverError:
        return False
    # On the thread of a request, which a mount that does not respond must not block.
    known = {path for directory in directories for path in (directory, resolve_path(directory))}
    return any(PurePath(image).is_relative_to(path) for path in known)
