"""Uploads a file from a program that can read it to a daemon that cannot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ostler import OstlerError
from ostler_volume.api_types import Upload, Volume
from ostler_volume.copying import data_extents, is_zero, read_piece
from ostler_volume.images import Image


class UploadProgress(NamedTuple):
    """How much of the data, without holes, has been uploaded."""

    done: float
    total: float
    text: str = "uploading"


def upload(
    client: Any,
    topic: str,
    image: Image,
    *,
    name: str,
    size: int | str = "",
    backend: str = "",
    host: str | None = None,
    on_progress: Callable[[Any], None] = lambda _how_far: None,
) -> Volume:
    """Create a volume from an image that this process has opened; blocks until it is complete.

    Holes and zeros are not sent. If this raises, nothing is left, at the latest after the service's `upload_timeout`.

    Args:
        client: A `Client`.
        topic: The topic of the volume service.
        image: From `images.open_own_image`.
        name: The volume's name.
        size: Its size, empty for that of the image.
        backend: Its backend; empty to let the scheduler choose.
        host: Its host; None to let the scheduler choose, or without one the host of the daemon.
        on_progress: Called with the progress.

    Raises:
        RequestError: It was refused.
        DriverError: The image was truncated meanwhile.
    """
    wanted = {"name": name, "length": image.size, "size": size, "backend": backend, "label": Path(image.path).name}
    begun: Upload = client.on(type=Upload).call(
        topic, "begin_upload", **wanted, **{"anywhere": True} if host is None else {"on_host": host}
    )
    there = client.on(host=begun.host or host)
    call = partial(there.call, topic)
    try:
        with image.borrow() as source:
            _send(call, begun, source, image.size, on_progress)
        made: Volume = there.on(type=Volume).call(topic, "finish_upload", upload=begun.id)
    except BaseException:
        with suppress(OstlerError):
            call("cancel_upload", upload=begun.id)
        raise
    return msgspec.structs.replace(made, note=begun.note)


def _send(call: Any, begun: Upload, source: int, length: int, on_progress: Callable[[Any], None]) -> None:
    found = list(data_extents(source, length))
    total = sum(end - start for start, end in found)
    done = 0
    for start, end in found:
        for at in range(start, end, begun.piece):
            piece = read_piece(source, at, min(begun.piece, end - at))
            if not is_zero(piece):
                call("upload_piece", upload=begun.id, offset=at, data=piece)
            done += len(piece)
            on_progress(UploadProgress(done, total))
