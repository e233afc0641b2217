"""CURVE: key pairs, and what a socket needs to be spoken to over a network. Imports no asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import zmq
from zmq.utils import z85

from ostler.errors import InvalidInput

if TYPE_CHECKING:
    from ostler.messaging.tcp.socket_options import Socket

KEY_LENGTH = 40
"""Characters of a key as it is written: 32 bytes in Z85."""
ZAP_DOMAIN = b"ostler"
"""The ZAP domain of a daemon's sockets; with one, each new connection is asked about at our door."""


class KeyPair(NamedTuple):
    """A key pair, each key as 40 characters of Z85; the secret one is never logged."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r}, secret='***')"


class CurveOptions(NamedTuple):
    """How connections over a network are made: never without CURVE.

    Attributes:
        key_pair: Our own key pair.
        server_key: The public key that the server must hold; empty for a server's own sockets.
        heartbeat_interval: Seconds between two signs of life on an idle connection.
        heartbeat_timeout: Seconds without one after which a connection counts as cut.
        connect_timeout: Seconds that a connection may take to be made.
    """

    key_pair: KeyPair
    server_key: str = ""
    heartbeat_interval: float = 1.0
    heartbeat_timeout: float = 3.0
    connect_timeout: float = 3.0


def generate_keys() -> KeyPair:
    """Return a new key pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def keys_from_secret(secret: str) -> KeyPair:
    """Return the pair of a secret key.

    Raises:
        InvalidInput: It is not a key.
    """
    return KeyPair(zmq.curve_public(_check_key(secret, "the secret key").encode()).decode(), secret)


def check_public_key(key: str, owner: str) -> str:
    """Return a public key; raises `InvalidInput` when it is none."""
    return _check_key(key, f"the public key of {owner}")


def encode_z85(key: bytes) -> str:
    """Return the 32 bytes of a key as it is written."""
    return z85.encode(key).decode()


def _check_key(key: str, description: str) -> str:
    try:
        raw = z85.decode(key.encode("ascii")) if len(key) == KEY_LENGTH else b""
    except (KeyError, ValueError, UnicodeEncodeError, OverflowError):
        raw = b""
    except Exception as error:
        if type(error).__module__ != "struct":
            raise
        raw = b""
    if len(raw) != 32:
        raise InvalidInput(
            f"{description} is not a valid key: it must be {KEY_LENGTH} characters of Z85",
            hint="create one with `ostler keys new`, show the public one with `ostler keys show`",
        )
    return key


def apply_curve_options(socket: Socket, curve: CurveOptions) -> None:
    """Set what a socket on a network needs. Before bind or connect."""
    socket.set(zmq.IPV6, 1)
    beat, silence = _milliseconds(curve.heartbeat_interval), _milliseconds(curve.heartbeat_timeout)
    # A cable that was pulled tells nobody: the client asks, and each end gives up after a silence, the server after as
    # long as the client says. The server must not ask: if it does so at a connection that was lost while its queue was
    # full, libzmq 4.3.5 aborts the process (`Assertion failed: !_io_error`), which any client can bring about.
    if curve.server_key:
        socket.set(zmq.HEARTBEAT_IVL, beat)
        socket.set(zmq.HEARTBEAT_TIMEOUT, silence)
        socket.set(zmq.HEARTBEAT_TTL, beat + silence)
    # The kernel's own, for what heartbeats do not see: a handshake that hangs, and data that nobody acknowledges.
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.set(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.set(zmq.CONNECT_TIMEOUT, _milliseconds(curve.connect_timeout))
    socket.set(zmq.HANDSHAKE_IVL, _milliseconds(curve.connect_timeout))
    socket.set(zmq.CURVE_SECRETKEY, curve.key_pair.secret.encode())
    if curve.server_key:
        socket.set(zmq.CURVE_PUBLICKEY, curve.key_pair.public.encode())
        socket.set(zmq.CURVE_SERVERKEY, curve.server_key.encode())
    else:
        socket.set(zmq.CURVE_SERVER, 1)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
