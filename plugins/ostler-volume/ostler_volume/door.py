"""The door: what comes in is judged here, before anything is written."""

from __future__ import annotations

import re
from typing import NamedTuple

from ostler import InvalidInput, parse_size
from ostler_volume.errors import BadImage, BadName, BadSize, SnapshotNotFound

NAME_MAX = 63
LABEL_MAX = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_NAME_HINT = f"1 to {NAME_MAX} letters, digits, `.`, `_` and `-`, the first a letter or digit"
SECTOR = 512
"""A loop device has whole sectors; a size is rounded up to them, so that none of it is out of reach when attached."""


class Origin(NamedTuple):
    """Where the content of a new volume comes from; at most one is set.

    `snapshot` is `VOLUME@NAME`, `upload` what the content is called that its caller hands over.
    """

    image: str = ""
    source: str = ""
    snapshot: str = ""
    upload: str = ""

    def label(self) -> str:
        """Return the origin as it stands in a record; `Volume` says which there are."""
        kinds = zip(("image", "volume", "snapshot", "upload"), self, strict=True)
        return next((f"{kind}:{value}" for kind, value in kinds if value), "")


def name_of(text: str, what: str = "volume") -> str:
    """Return a name that is allowed.

    Raises:
        BadName: It is empty, too long, or has a character that is not allowed; `/`, `.` and `..` never pass.
    """
    if not text:
        raise BadName(f"a {what} needs a name", hint=_NAME_HINT)
    if len(text) > NAME_MAX:
        raise BadName(f"a {what} name of {len(text)} characters is too long", hint=_NAME_HINT, name=text[:NAME_MAX])
    if not _NAME.fullmatch(text):
        raise BadName(f"{text!r} cannot be the name of a {what}", hint=_NAME_HINT, name=text)
    return text


def size_of(value: int | str, what: str = "volume") -> int:
    """Return a size in bytes, rounded up to whole sectors.

    Args:
        value: Bytes, or text as people write it (`10GiB`).
        what: What is to have the size, for the sentence that refuses it.

    Raises:
        BadSize: It is no size, or not above zero.
    """
    hint = "write whole bytes (10737418240) or a number with a unit (10GiB, 500MB)"
    if value == "":
        raise BadSize(f"a {what} needs a size", hint=hint)
    try:
        size = parse_size(value) if isinstance(value, str) else int(value)
    except InvalidInput as error:
        raise BadSize(error.message, hint=error.hint, size=value) from None
    if isinstance(value, bool) or size <= 0:
        raise BadSize(f"a {what} cannot have the size {value}", hint=hint, size=value)
    if size > 2**63 - SECTOR:
        raise BadSize(f"a size of {value} is more than any file can hold", hint=hint, size=value)
    return -(-size // SECTOR) * SECTOR


def origin_of(image: str, source: str, snapshot: str) -> Origin:
    """Return where the content comes from.

    Raises:
        InvalidInput: More than one origin was given.
        BadImage: The image is no absolute path.
        BadName: The source or the snapshot is no name.
        SnapshotNotFound: The snapshot is not written `VOLUME@NAME`.
    """
    if sum(map(bool, (image, source, snapshot))) > 1:
        raise InvalidInput("a volume has one origin at most", hint="give only one of image, source and snapshot")
    if image and (not image.startswith("/") or "\0" in image):
        raise BadImage(f"{image!r} is no absolute path", hint="the daemon has another working folder", image=image)
    if source:
        name_of(source)
    if snapshot:
        split_snapshot(snapshot)
    return Origin(image, source, snapshot)


def label_of(text: str) -> str:
    """Return what uploaded content is called, as it may stand in a record: short and printable, never empty."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LABEL_MAX]) or "content"


def split_snapshot(text: str) -> tuple[str, str]:
    """Return volume and name of a snapshot that is written `VOLUME@NAME`.

    Raises:
        SnapshotNotFound: It is not written so.
        BadName: One of the names is not allowed.
    """
    volume, at, name = text.partition("@")
    if not at:
        raise SnapshotNotFound(f"{text!r} names no snapshot", hint="write VOLUME@NAME", snapshot=text)
    return name_of(volume), name_of(name, "snapshot")
