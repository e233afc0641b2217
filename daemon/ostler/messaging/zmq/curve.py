"""CURVE: key pairs, and what a socket needs to be spoken to over a network. Imports no asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import zmq

from ostler.errors import InvalidInput

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Socket

KEY_LENGTH = 40
"""Characters of a key as it is written: 32 bytes in Z85."""
DOMAIN = b"ostler"
"""The ZAP domain of a daemon's sockets; with one, each new connection is asked about at our door."""


class Keys(NamedTuple):
    """A key pair, each key as 40 characters of Z85; the secret one is never logged."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r}, secret='***')"


class Network(NamedTuple):
    """How connections over a network are made: never without CURVE.

    Attributes:
        keys: Our own key pair.
        server: The public key that the server must hold; empty for a server's own sockets.
        heartbeat: Seconds between two signs of life on an idle connection.
        silence: Seconds without one after which a connection counts as cut.
        patience: Seconds that a connection may take to be made.
    """

    keys: Keys
    server: str = ""
    heartbeat: float = 1.0
    silence: float = 3.0
    patience: float = 3.0


def new_keys() -> Keys:
    """Return a new key pair."""
    public, secret = zmq.curve_keypair()
    return Keys(public.decode(), secret.decode())


def keys_of(secret: str) -> Keys:
    """Return the pair of a secret key.

    Raises:
        InvalidInput: It is no key.
    """
    return Keys(zmq.curve_public(_checked(secret, "the secret key").encode()).decode(), secret)


def check_public(key: str, whose: str) -> str:
    """Return a public key; raises `InvalidInput` when it is none."""
    return _checked(key, f"the public key of {whose}")


def z85(key: bytes) -> str:
    """Return the 32 bytes of a key as it is written."""
    from zmq.utils import z85 as codec

    return codec.encode(key).decode()


def _checked(key: str, what: str) -> str:
    from zmq.utils import z85 as codec

    try:
        raw = codec.decode(key.encode("ascii")) if len(key) == KEY_LENGTH else b""
    except (KeyError, ValueError, UnicodeEncodeError, OverflowError):
        raw = b""
    except Exception as error:
        if type(error).__module__ != "struct":
            raise
        raw = b""
    if len(raw) != 32:
        raise InvalidInput(
            f"{what} is no key: it has to be {KEY_LENGTH} characters of Z85",
            hint="make one with `ostler keys new`, show the public one with `ostler keys show`",
        )
    return key


def secure(socket: Socket, network: Network) -> None:
    """Set what a socket on a network needs. Before bind or connect."""
    socket.set(zmq.IPV6, 1)
    beat, silence = _milliseconds(network.heartbeat), _milliseconds(network.silence)
    # A cable that was pulled tells nobody: the client asks, and each end gives up after a silence, the server after as
    # long as the client says. The server must not ask: if it does so at a connection that was lost while its queue was
    # full, libzmq 4.3.5 aborts the process (`Assertion failed: !_io_error`), which any client can bring about.
    if network.server:
        socket.set(zmq.HEARTBEAT_IVL, beat)
        socket.set(zmq.HEARTBEAT_TIMEOUT, silence)
        socket.set(zmq.HEARTBEAT_TTL, beat + silence)
    # The kernel's own, for what heartbeats do not see: a handshake that hangs, and data that nobody acknowledges.
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.set(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.set(zmq.CONNECT_TIMEOUT, _milliseconds(network.patience))
    socket.set(zmq.HANDSHAKE_IVL, _milliseconds(network.patience))
    socket.set(zmq.CURVE_SECRETKEY, network.keys.secret.encode())
    if network.server:
        socket.set(zmq.CURVE_PUBLICKEY, network.keys.public.encode())
        socket.set(zmq.CURVE_SERVERKEY, network.server.encode())
    else:
        socket.set(zmq.CURVE_SERVER, 1)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
