"""Validates the arguments of requests, before anything is written."""

from __future__ import annotations

import re
from typing import NamedTuple

from ostler import InvalidInput, parse_size
from ostler_volume.errors import BadImage, BadName, BadSize, SnapshotNotFound

MAX_NAME_LENGTH = 63
MAX_LABEL_LENGTH = 200
_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_NAME_HINT = f"1 to {MAX_NAME_LENGTH} letters, digits, `.`, `_` and `-`, the first a letter or digit"
SECTOR_SIZE = 512
"""A loop device has whole sectors; sizes are rounded up to them, so that all of a volume is usable when attached."""


class Origin(NamedTuple):
    """Where the content of a new volume comes from; at most one is set.

    `snapshot` is `VOLUME@NAME`, `upload` the label of uploaded content.
    """

    image: str = ""
    source: str = ""
    snapshot: str = ""
    upload: str = ""

    def label(self) -> str:
        """Return the origin as stored in a record; see `Volume` for the forms."""
        kinds = zip(("image", "volume", "snapshot", "upload"), self, strict=True)
        return next((f"{kind}:{value}" for kind, value in kinds if value), "")


def parse_name(text: str, what: str = "volume") -> str:
    """Return a valid name.

    Raises:
        BadName: It is empty, too long, or has an invalid character; `/`, `.` and `..` are never accepted.
    """
    if not text:
        raise BadName(f"the {what} name is empty", hint=_NAME_HINT)
    if len(text) > MAX_NAME_LENGTH:
        raise BadName(
            f"the {what} name is too long: {len(text)} characters", hint=_NAME_HINT, name=text[:MAX_NAME_LENGTH]
        )
    if not _NAME_PATTERN.fullmatch(text):
        raise BadName(f"{text!r} is not a valid {what} name", hint=_NAME_HINT, name=text)
    return text


def parse_volume_size(value: int | str, what: str = "volume") -> int:
    """Return a size in bytes, rounded up to whole sectors.

    Args:
        value: Bytes, or text such as `10GiB`.
        what: The kind of object, for the error.

    Raises:
        BadSize: It is not a valid size, or not above zero.
    """
    hint = "write whole bytes (10737418240) or a number with a unit (10GiB, 500MB)"
    if value == "":
        raise BadSize(f"the {what} size is missing", hint=hint)
    try:
        size = parse_size(value) if isinstance(value, str) else int(value)
    except InvalidInput as error:
        raise BadSize(error.message, hint=error.hint, size=value) from None
    if isinstance(value, bool) or size <= 0:
        raise BadSize(f"{value} is not a valid {what} size", hint=hint, size=value)
    if size > 2**63 - SECTOR_SIZE:
        raise BadSize(f"the size {value} is too large", hint=hint, size=value)
    return -(-size // SECTOR_SIZE) * SECTOR_SIZE


def parse_origin(image: str, source: str, snapshot: str) -> Origin:
    """Return where the content comes from.

    Raises:
        InvalidInput: More than one origin was given.
        BadImage: The image is not an absolute path.
        BadName: The source or the snapshot is not a valid name.
        SnapshotNotFound: The snapshot is not written `VOLUME@NAME`.
    """
    if sum(map(bool, (image, source, snapshot))) > 1:
        raise InvalidInput("a volume has at most one origin", hint="give only one of image, source and snapshot")
    if image and (not image.startswith("/") or "\0" in image):
        raise BadImage(
            f"the image {image!r} is not an absolute path", hint="the daemon has another working directory", image=image
        )
    if source:
        parse_name(source)
    if snapshot:
        split_snapshot_name(snapshot)
    return Origin(image, source, snapshot)


def clean_label(text: str) -> str:
    """Return the label of uploaded content for its record: short, printable, and not empty."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_LABEL_LENGTH]) or "content"


def split_snapshot_name(text: str) -> tuple[str, str]:
    """Return volume and name of a snapshot that is written `VOLUME@NAME`.

    Raises:
        SnapshotNotFound: It is not written so.
        BadName: One of the names is not allowed.
    """
    volume, at, name = text.partition("@")
    if not at:
        raise SnapshotNotFound(f"{text!r} is not a valid snapshot name", hint="write VOLUME@NAME", snapshot=text)
    return parse_name(volume), parse_name(name, "snapshot")
