"""Handing the content of a file over, from a program that may read it to a daemon that may not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ostler import OstlerError
from ostler_volume.copying import extents, is_zero, read_piece
from ostler_volume.images import Image
from ostler_volume.wire import Upload, Volume


class HowFar(NamedTuple):
    """How much of the data, without its holes, has been handed over."""

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
    """Create a volume from an image that this process has open; blocks until it is there.

    Holes and zeros are not sent. When this raises nothing is left, at the latest after the service's `upload_timeout`.

    Args:
        client: A `Client`.
        topic: The topic of the volume service.
        image: From `images.open_own_image`.
        name: The volume's name.
        size: Its size, empty for that of the image.
        backend: Where; empty to have the scheduler choose.
        host: The host that it goes to; None to have the scheduler choose, or for that of the daemon that is asked.
        on_progress: Called with how far it is.

    Raises:
        RequestError: It was refused.
        DriverError: The image became shorter meanwhile.
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
    found = list(extents(source, length))
    total = sum(end - start for start, end in found)
    done = 0
    for start, end in found:
        for at in range(start, end, begun.piece):
            piece = read_piece(source, at, min(begun.piece, end - at))
            if not is_zero(piece):
                call("upload_piece", upload=begun.id, offset=at, data=piece)
            done += len(piece)
            on_progress(HowFar(done, total))
