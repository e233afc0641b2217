"""The messages on the wire. No I/O here.

Each message is one msgpack array: a number that says which kind it is, the version of this format, the number of the
request it belongs to, and then the fields of its kind in the order below. New fields are only ever added at the end,
with a default; a peer ignores those it does not know. `docs/wire.md` describes them field by field, for clients
in other languages.

What cannot be decoded is a `MalformedMessage` with a one-word reason: `empty`, `large`, `msgpack` (no msgpack at all),
`shape` (msgpack, but no message of ours), `version`, `kind` (a message that does not go in this direction).
Elements are counted before anything is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta, Raw
from msgspec.msgpack import Decoder, Encoder

from ostler.bounds import DetailValue
from ostler.errors import EncodeError, MalformedMessage, MessageTooLarge, OstlerError, WireError, from_wire, to_wire
from ostler.types import option_hint

MAX_ELEMENTS: Final = 65536
"""The limit of elements of a request where nothing else is configured."""
MAX_REPLY_ELEMENTS: Final = 1_000_000
"""The limit of elements of an answer where a client names no other: decoding them takes about 0.2 s and 100 MB."""

_BATCH_ELEMENTS: Final = 64
"""So many elements whose first byte says how long they are, numbers and short texts, are taken in one step."""
_VARIABLE_WIDTH: Final = 0
"""In `_WIDTHS`: the length follows the first byte."""


def _make_widths() -> tuple[int, ...]:
    """Return how many bytes an element takes, by its first byte; `_VARIABLE_WIDTH` where more bytes say it."""
    widths = [1] * 256  # 0xc1, which is never used, is taken as one too: the decoder refuses it
    for first in range(0xA0, 0xC0):
        widths[first] = 1 + (first & 31)
    fixed = {
        0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,  # numbers
        0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,  # extensions of a fixed size
        0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,  # heads of arrays and maps: what is in them are elements of their own
    }  # fmt: skip
    for first, width in fixed.items():
        widths[first] = width
    for first in _LENGTHS:
        widths[first] = _VARIABLE_WIDTH
    return tuple(widths)


_U8, _U16, _U32 = Struct(">B").unpack_from, Struct(">H").unpack_from, Struct(">I").unpack_from
_LENGTHS: Final = {
    0xC4: (_U8, 2), 0xC5: (_U16, 3), 0xC6: (_U32, 5),  # bytes
    0xC7: (_U8, 3), 0xC8: (_U16, 4), 0xC9: (_U32, 6),  # extensions
    0xD9: (_U8, 2), 0xDA: (_U16, 3), 0xDB: (_U32, 5),  # texts
}  # fmt: skip
"""How the length of an element is read, and how many bytes come before its content."""
_WIDTHS: Final = _make_widths()


@cache
def _batch_pattern() -> re.Pattern[bytes]:
    """Return the expression that a batch matches; what comes after the first byte of an element may be anything."""
    firsts: dict[int, bytes] = {}
    for first, width in enumerate(_WIDTHS):
        firsts[width] = firsts.get(width, b"") + b"\\x%02x" % first
    del firsts[_VARIABLE_WIDTH]
    elements = (b"[%s].{%d}" % (firsts[width], width - 1) for width in sorted(firsts))
    return re.compile(b"(?>%s){%d}+" % (b"|".join(elements), _BATCH_ELEMENTS), re.DOTALL)


def count_elements(data: bytes | memoryview, limit: int) -> int:
    """Return how many msgpack elements there are in `data`: each scalar, array and map is one, keys and values too.

    Nothing is decoded, and what lies inside texts and bytes is skipped. What is truncated or malformed is counted as
    far as it goes; the decoder refuses it. A message has no more elements than bytes: who knows that `len(data)` is
    within the limit need not ask. On any thread.

    Args:
        data: The message, or a part of it.
        limit: How many may be there. At most one more is visited.

    Returns:
        The number of elements, `limit + 1` when there are more than `limit`.
    """
    widths, batches, end, most = _WIDTHS, _batch_pattern().match, len(data), limit + 1
    position = count = looked = 0
    try:
        while position < end and count < most:
            if looked <= count <= limit - _BATCH_ELEMENTS:
                if (batch := batches(data, position)) is not None:
                    count += _BATCH_ELEMENTS
                    position = batch.end()
                    continue
                looked = (
                    count + _BATCH_ELEMENTS
                )  # there is a long element among them: no use in looking before it is past
            width = widths[data[position]]
            count += 1
            if not width:
                read, width = _LENGTHS[data[position]]
                width += read(data, position + 1)[0]
            position += width
    except StructError:
        pass  # it ends within a length
    return count


def check_elements(data: bytes | memoryview, limit: int, what: str = "the message") -> None:
    """Refuse a message with too many elements; nothing of it is decoded. On any thread.

    Args:
        data: The message.
        limit: How many elements it may have.
        what: Which message, for the sentence.

    Raises:
        MessageTooLarge: It has more.
    """
    if len(data) > limit and count_elements(data, limit) > limit:
        raise MessageTooLarge(
            f"{what} has more than {limit} elements",
            hint="send less at once, or use a stream; each text, number, list and map counts as one element",
            size=len(data),
            max_elements=limit,
        )


PROTOCOL_VERSION: Final = 1
"""The version of this format."""

MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024
"""The size limit of a message in bytes where nothing else is configured."""

LENIENT: Final = 1
"""Flag: texts may stand for numbers, booleans and structures, as a command line has them."""
CAST: Final = 2
"""Flag: answer with `Accepted` when the work is accepted, and not with its result."""
FANOUT: Final = 4
"""Flag: a cast to every service on the topic."""
PROGRESS: Final = 8
"""Flag: the caller wants to hear of progress."""
STREAM: Final = 16
"""Flag: the caller takes a stream; `credit` says how many items at first."""
RETRY: Final = 32
"""Flag: the caller may send this request again under the same `request_id`; its answer is stored for that."""
SUBMIT: Final = 64
"""Flag: store the request as an operation, and answer with its status as soon as it is stored."""

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Name = Annotated[str, Meta(max_length=255)]
_Seconds = Annotated[float, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=0, le=2**31)]
_ProtocolVersion = Literal[1]


class Request(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A call, cast or fanout.

    `id` is chosen by the client, once per connection; `request_id` goes into logs and stays the same over a retry.
    `arguments` is a map. `timeout` is in seconds from now, None for no deadline. An empty `host` is the one here,
    or one that has the topic. `trace` is a W3C `traceparent`, empty when nobody traces. `credit` is the number of items
    that a caller of a stream takes at first. `time_limit` is the seconds in which a submitted operation must end, None
    for no limit; `timeout` is then that of its acceptance.
    """

    v: _ProtocolVersion
    id: _Id
    topic: _Name
    method: _Name
    arguments: Raw
    timeout: _Seconds | None = None
    request_id: _Name = ""
    flags: int = 0
    host: _Name = ""
    version: _Name = ""
    trace: _Name = ""
    credit: _Count = 0
    time_limit: _Seconds | None = None


class Cancel(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The caller cancels a request."""

    v: _ProtocolVersion
    id: _Id


class Credit(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The caller of a stream grants credit for so many more items."""

    v: _ProtocolVersion
    id: _Id
    items: _Count


class Reply(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The result of a call."""

    v: _ProtocolVersion
    id: _Id
    result: Raw


class Failure(msgspec.Struct, array_like=True, tag=11, gc=False):
    """The error a request ended with: its name, those of its bases, sentence, hint and facts.

    `id` is None for an answer to bytes whose request cannot be told.
    """

    v: _ProtocolVersion
    id: _Id | None
    names: list[str]
    message: str
    hint: str
    details: dict[str, Any]


class Accepted(msgspec.Struct, array_like=True, tag=12, gc=False):
    """A cast or fanout was accepted, by so many services."""

    v: _ProtocolVersion
    id: _Id
    reached: int


class ProgressReport(msgspec.Struct, array_like=True, tag=13, gc=False):
    """How far a call is; see `ostler.messaging.wire.request_context.Progress`."""

    v: _ProtocolVersion
    id: _Id
    done: float
    total: float
    text: str


class Keepalive(msgspec.Struct, array_like=True, tag=14, gc=False):
    """The server is alive and has these requests; the next beat comes within `interval` seconds."""

    v: _ProtocolVersion
    ids: list[_Id]
    interval: _Seconds


class Items(msgspec.Struct, array_like=True, tag=15, gc=False):
    """The next items of a stream, in their order: `items` is an array, `first` the number of its first, from 0.

    A stream ends with a `Reply` (whose result is nil) or a `Failure`.
    """

    v: _ProtocolVersion
    id: _Id
    first: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    items: Raw


ToServer: TypeAlias = Request | Cancel | Credit
ToClient: TypeAlias = Reply | Failure | Accepted | ProgressReport | Keepalive | Items

_encoder = Encoder()
_to_server: Decoder[ToServer] = Decoder(ToServer)
_to_client: Decoder[ToClient] = Decoder(ToClient)

ENCODE_ERRORS: Final = (TypeError, ValueError, OverflowError, RecursionError, AttributeError)
"""What encoding raises for a value that cannot be encoded; the last one where a field was never set."""

encode_message = _encoder.encode
"""Encode a message whose fields are known to be encodable."""


def encode_value(value: object, description: str) -> bytes:
    """Return a value as msgpack.

    Raises:
        EncodeError: It cannot be encoded; the sentence begins with `description`.
    """
    try:
        return _encoder.encode(value)
    except ENCODE_ERRORS as error:
        raise EncodeError(
            f"{description} cannot be encoded: {error}",
            hint="use plain values, structs, dataclasses, enums and datetimes",
            value=type(value).__name__,
        ) from error


def encode_arguments(arguments: Mapping[str, object], full_name: str) -> bytes:
    """Return the arguments of `topic.method` as msgpack.

    Raises:
        EncodeError: One cannot be encoded; says so of an option of a call that was given as an argument.
    """
    try:
        return encode_value(arguments, f"an argument of {full_name}")
    except EncodeError as error:
        error.hint = option_hint(arguments) or error.hint
        raise


def encode_request(request: Request, limit: int = MAX_MESSAGE_SIZE) -> bytes:
    """Return a request as bytes; its `arguments` may be a plain dictionary here.

    Raises:
        EncodeError: An argument cannot be encoded.
        MessageTooLarge: It would be above `limit` bytes.
    """
    try:
        data = _encoder.encode(request)
    except ENCODE_ERRORS:
        where = f"{request.topic}.{request.method}"
        # The arguments first: they are what a caller may have got wrong.
        encode_arguments(cast("Mapping[str, object]", request.arguments), where)
        data = encode_value(request, f"an argument of {where}")
    return data if len(data) <= limit else check_size(data, limit, f"the request to {request.topic}.{request.method}")


def encode_reply(message_id: int, result: object, limit: int, topic: str, method: str) -> bytes:
    """Return a reply as bytes.

    Raises:
        EncodeError: The result cannot be encoded.
        MessageTooLarge: It would be above `limit` bytes.
    """
    # The result is no Raw; the encoder takes whatever it finds there.
    reply = Reply(PROTOCOL_VERSION, message_id, cast("Raw", result))
    try:
        data = _encoder.encode(reply)
    except ENCODE_ERRORS:
        data = encode_value(reply, f"the result of {topic}.{method}")
    return data if len(data) <= limit else check_size(data, limit, f"the result of {topic}.{method}")


_ARRAY_HEADER = Struct(">BH")
_ITEMS_HEADER = Struct(">BBBBQBQBH")
"""How a message of items begins: an array of kind, version, id and first number, and the head of the array of items."""
ITEMS_HEADER_SIZE: Final = _ITEMS_HEADER.size
"""So many bytes come on top of the items themselves."""
MAX_BATCH_ITEMS: Final = 1024
"""The most items in one message."""


def encode_item(item: object, item_number: int, limit: int, full_name: str) -> bytes:
    """Return one item of a stream, the one with this number, as bytes.

    Raises:
        EncodeError: It cannot be encoded.
        MessageTooLarge: It alone would make a message above `limit` bytes.
    """
    try:
        data = _encoder.encode(item)
    except ENCODE_ERRORS:
        data = encode_value(item, f"item {item_number} of {full_name}")
    room = limit - ITEMS_HEADER_SIZE
    return data if len(data) <= room else check_size(data, room, f"item {item_number} of {full_name}")


def encode_array(items: list[bytes]) -> bytes:
    """Return items that are encoded already as one array; `MAX_BATCH_ITEMS` at most."""
    return _ARRAY_HEADER.pack(0xDC, len(items)) + b"".join(items)


def encode_items(message_id: int, first: int, items: list[bytes]) -> bytes:
    """Return a message with items that are encoded already; `MAX_BATCH_ITEMS` at most."""
    return _ITEMS_HEADER.pack(0x95, 15, PROTOCOL_VERSION, 0xCF, message_id, 0xCF, first, 0xDC, len(items)) + b"".join(
        items
    )


def encode_failure(message_id: int | None, error: OstlerError) -> bytes:
    """Return an error as bytes."""
    wire = to_wire(error)
    return _encoder.encode(
        Failure(PROTOCOL_VERSION, message_id, list(wire.names), wire.message, wire.hint, dict(wire.details))
    )


def check_size(data: bytes, limit: int, description: str) -> bytes:
    """Return `data`.

    Raises:
        MessageTooLarge: It is above `limit` bytes.
    """
    if len(data) > limit:
        raise MessageTooLarge(
            f"{description} has {len(data)} bytes, the limit is {limit}",
            hint="send less at once, or raise `max_message_size` in [messaging]",
            size=len(data),
            limit=limit,
        )
    return data


def error_from_failure(failure: Failure) -> OstlerError:
    """Return the error that a peer sent."""
    facts = cast("dict[str, DetailValue]", failure.details)
    return from_wire(WireError(tuple(failure.names), failure.message, failure.hint, facts))


def decode_to_server(data: bytes | memoryview) -> ToServer:
    """Return what a client sent.

    Raises:
        MalformedMessage: It is not a valid message.
    """
    try:
        return _to_server.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed_message(data, str(error), _TAGS_TO_CLIENT) from None


def decode_to_client(data: bytes | memoryview) -> ToClient:
    """Return what a server sent.

    Raises:
        MalformedMessage: It is not a valid message.
    """
    try:
        return _to_client.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed_message(data, str(error), _TAGS_TO_SERVER) from None


_TAGS_TO_SERVER = frozenset({1, 2, 3})
_TAGS_TO_CLIENT = frozenset({10, 11, 12, 13, 14, 15})
_REPLY_TAGS = frozenset({10, 11, 12, 15})


def peek_reply_id(data: bytes | memoryview) -> int:
    """Return the request that a result, error or items are for, without decoding more; -1 when it is none of them."""
    head = peek_header(data)
    return head[2] if len(head) > 2 and head[0] in _REPLY_TAGS else -1


def _malformed_message(data: bytes | memoryview, text: str, other_direction: frozenset[int]) -> MalformedMessage:
    """Say why bytes are no message, and to which request they would have belonged."""
    head = peek_header(data)
    number = head[2] if len(head) > 2 else None
    if not len(data):
        reason, text = "empty", "it is empty"
    elif not head:
        reason, text = "msgpack", "it is not a msgpack array that starts with numbers"
    elif head[0] in other_direction:
        reason, text = "kind", f"messages of kind {head[0]} are not valid in this direction"
    elif len(head) > 1 and head[1] != PROTOCOL_VERSION:
        reason, text = "version", f"message format version {head[1]}, expected version {PROTOCOL_VERSION}"
    else:
        reason = "shape"
    return MalformedMessage(f"invalid message: {text}", reason=reason, id=number)


def peek_header(data: bytes | memoryview) -> list[int]:
    """Return the leading numbers of an array, three at most: kind, version, number of the request.

    Reads those few bytes only: garbage must not decide how much is decoded, nor how much memory that takes.
    """
    head = bytes(data[:32])
    if not head:
        return []
    start = 1 if 0x90 <= head[0] <= 0x9F else {0xDC: 3, 0xDD: 5}.get(head[0], 0)
    found: list[int] = []
    while start and len(found) < 3 and start < len(head):
        first = head[start]
        width = 0 if first < 0x80 else {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(first, -1)
        end = start + 1 + width
        if width < 0 or end > len(head):
            break
        found.append(int.from_bytes(head[start + 1 : end], "big") if width else first)
        start = end
    return found if len(found) < 3 or found[2] < 2**63 else found[:2]
