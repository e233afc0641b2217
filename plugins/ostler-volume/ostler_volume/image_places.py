"""Which backends can take an image by its path, and how large it is: known before a place for its volume is chosen."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, NamedTuple

from ostler import DriverError, OstlerError
from ostler_volume.driver import IMAGE
from ostler_volume.image_source import resolved
from ostler_volume.workshop import Workshop


class ImagePlaces(NamedTuple):
    """The size of an image in bytes, and the backends that cannot take it, `HOST/BACKEND`."""

    size: int
    exclude: tuple[str, ...]


def places_of(workshop: Workshop, image: str) -> ImagePlaces:
    """Return how large an image is, and who cannot take it; opened once, by one of those that can.

    Args:
        workshop: The backends.
        image: Its absolute path on this host.

    Raises:
        BadImage: No backend takes it from there, or it is none.
        DriverError: No backend that could take it can be asked now.
    """
    ready = [name for name in workshop.drivers.ready() if IMAGE in workshop.drivers[name].features]
    takers = [name for name in ready if _takes(workshop.drivers[name], image)]
    exclude = tuple(f"{workshop.host}/{name}" for name in ready if name not in takers)
    failed: OstlerError | None = None
    # One that has it nowhere is asked too when there is no other: it says why, and which directories there are.
    for name in takers or ready[:1]:
        try:
            with workshop.drivers[name].open_image(image) as opened:
                return ImagePlaces(opened.size, exclude if takers else ())
        except DriverError as error:  # this backend does not answer; another one may
            failed = error
    if failed is not None:
        raise failed
    return ImagePlaces(0, ())


def _takes(driver: Any, image: str) -> bool:
    try:
        directories = driver.image_directories()
    except DriverError:
        return False
    # On the thread of a request, which no mount that does not answer may keep.
    known = {path for directory in directories for path in (directory, resolved(directory))}
    return any(PurePath(image).is_relative_to(path) for path in known)
