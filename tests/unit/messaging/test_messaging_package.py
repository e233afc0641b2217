"""What the room offers, and what its users do not have to import."""

import subprocess
import sys

import pytest

import ostler.messaging


def test_every_public_name_is_there():
    for name in ostler.messaging.__all__:
        assert getattr(ostler.messaging, name).__name__ == name
    with pytest.raises(AttributeError):
        ostler.messaging.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("ostler.messaging.clients.sync_client", ["asyncio", "pydantic", "secrets", "ostler.messaging.rpc.rpc_server"]),
        ("ostler.messaging.tcp.sync_link", ["asyncio", "pydantic"]),
        ("ostler.messaging.wire.request_context", ["asyncio", "zmq", "pydantic"]),
        ("ostler.messaging.events", ["asyncio", "zmq", "pydantic"]),
        ("ostler.messaging.rpc.rpc_server", ["zmq", "pydantic"]),
        ("ostler.messaging.clients.async_client", ["zmq", "pydantic"]),
    ],
)
def test_imports_stay_lean(module, absent):
    code = f"import sys, {module}; print(*[name for name in {absent!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
