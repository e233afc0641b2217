"""Depth one: bytes into the ZMTP conversation, in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterator

from defect_watch import DefectFound, same
from mutator import Mutator

from ostler.messaging.unix.protocol import ProtocolError, ZmtpConnection, encode_frame, encode_refusal, greeting

# private: _partial: how much is kept of a message shows in nothing else

LIMIT = 4096
SIDES = [frozenset({b"DEALER", b"REQ"}), frozenset({b"ROUTER", b"DEALER", b"REP"}), frozenset({b"SUB", b"XSUB"})]
"""Whom a server of calls, a client and a publisher talk to."""
REASONS = {"protocol", "large"}
Step = tuple[int, list[bytes], int]
GREETING = greeting(b"DEALER")[:64]


def command(name: bytes, data: bytes = b"") -> bytes:
    """Return a command as it goes over the wire."""
    body = bytes((len(name),)) + name + data
    return bytes((4, len(body))) + body


FRAMES = [
    encode_frame(b""), encode_frame(b"x"), encode_frame(b"x" * 255), encode_frame(b"x" * 256),
    encode_frame(b"y" * LIMIT), b"\x01\x01a", b"\x01\x00",
    b"\0\0",
    b"\x02" + (5).to_bytes(8, "big") + b"hello", b"\x03" + (1).to_bytes(8, "big") + b"m", b"\x01\x01a\x01\x01b\0\x01c",
    command(b"PING", b"\0\x0ahear"), command(b"PING"), command(b"PING", b"\0\0" + b"c" * 40), command(b"PONG", b"c"),
    command(b"READY"), greeting(b"REQ")[64:], greeting(b"SUB")[64:], command(b"ERROR", b"\x03500"), command(b"ERROR"),
    command(b"SUBSCRIBE", b"x"), command(b"CANCEL", b""), b"\x04\x00", b"\x04\x01\xff",
    b"\x06" + (7).to_bytes(8, "big") + b"\x06UNKNWN",
]  # fmt: skip
BAD = [
    b"\x02" + b"\xff" * 8, b"\x06" + b"\xff" * 8, b"\x02" + (LIMIT + 1).to_bytes(8, "big"), b"\x08\x00", b"\xff\xff",
    b"\x02" + b"\x80" + bytes(7), b"\x04\x07\x05READY\x20", command(b"READY", b"\x0bSocket-Type\xff\xff\xff\xffDEALER"),
]  # fmt: skip
STARTS = [
    greeting(b"DEALER"), greeting(b"REQ"), greeting(b"ROUTER"), greeting(b"SUB"), greeting(b"DEALER" * 60), GREETING,
    encode_refusal(b"5"),
    b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f\x01" + bytes(53), b"\xff" * 64, bytes(64),
    b"\x16\x03\x01\x02",
    GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32),
    b"\xff" + b"\x01" * 8 + b"\x7f" + GREETING[10:] + greeting(b"DEALER")[64:],
]  # fmt: skip


class ZmtpTarget:
    """Two conversations hear the same bytes: one in a piece, one in many; they understand the same."""

    name = "talk"
    frames_a_round = 20_000

    def steps(self, seed: str, frames: int) -> Iterator[Step]:
        """Return conversations (side, pieces, number of frames), about `frames` frames together."""
        mutator = Mutator(seed, [*FRAMES, *STARTS])
        made = 0
        while made < frames:
            side = mutator.number(len(SIDES))
            start = greeting((b"DEALER", b"ROUTER", b"SUB")[side])
            if mutator.dice.random() < 0.3:
                start = mutator.one_of(STARTS)
                start = mutator.bent(start) if mutator.dice.random() < 0.5 else start
            count = 1 + mutator.number(60)
            parts = [mutator.one_of(FRAMES) for _ in range(count)]
            how = mutator.dice.random()
            if how < 0.4:
                parts[mutator.number(count)] = mutator.bent(mutator.one_of(FRAMES))
            elif how < 0.6:
                parts[mutator.number(count)] = mutator.one_of(BAD)
            elif how < 0.7:
                parts.append(mutator.dice.randbytes(mutator.number(300)))
            made += count + 1
            yield side, mutator.pieces(start + b"".join(parts)), count + 1

    def run(self, steps: Iterator[Step]) -> int:
        """Have both hear all; return how many frames went by."""
        heard = 0
        for side, pieces, frames in steps:
            whole = _receive(side, [b"".join(pieces)] if pieces else [])
            torn = _receive(side, pieces)
            same("what was understood in pieces", torn, whole)
            heard += frames
        return heard


def _receive(side: int, pieces: list[bytes]) -> tuple[list[bytes], str, int, list[bytes], bool, str]:
    """Return what a conversation made of the pieces: messages, its end, those of several frames, answers, states."""
    talk, found, end = ZmtpConnection(SIDES[side], LIMIT), [], ""
    for piece in pieces:
        try:
            found += talk.receive_data(piece)
        except ProtocolError as error:
            end = error.reason
            if end not in REASONS:
                raise DefectFound(f"a reason that nobody knows: {end}") from error
            break
        if len(talk._partial) > LIMIT + 9 + len(piece):
            raise DefectFound(f"{len(talk._partial)} bytes are kept, of messages of {LIMIT} at most")
    if found and not talk.is_ready:
        raise DefectFound("a message came out of a conversation that had not begun")
    if end:  # in pieces, what came before the error was handed over before it; in one piece the error is all
        return [], end, 0, [], False, ""
    return found, end, talk.multipart_count, talk.to_send, talk.is_ready, talk.refusal_reason
