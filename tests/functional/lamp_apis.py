"""One plugin in two versions, and the typed clients of both."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import msgspec

from ostler import RpcApi, remote

COMMON = """
import msgspec
from ostler import Context, Manager, exposed, hookimpl

class Lamp(msgspec.Struct):
    name: str
    lit: bool
    {field}

class LampManager(Manager):
    rpc_version = {version!r}
    {more}
@hookimpl
def ostler_managers():
    return {{"lamp": LampManager}}
"""

OLD = COMMON.format(
    version="1.0",
    field="",
    more='''
    @exposed()
    def switch(self, ctx: Context, name: str, on: bool = True) -> Lamp:
        """Switch a lamp."""
        return Lamp(name, on)
''',
)

NEW = COMMON.format(
    version="1.1",
    field="level: int = 100",
    more='''
    namespaces = {}

    @exposed()
    def switch(self, ctx: Context, name: str, on: bool = True, level: int = 100) -> Lamp:
        """Switch a lamp.

        Args:
            ctx: The request.
            name: Which lamp.
            on: Whether it is to be lit.
            level: How bright, in percent.
        """
        return Lamp(name, on, level)

    @exposed(version="1.1")
    def dim(self, ctx: Context, name: str) -> Lamp:
        return Lamp(name, True, 10)

    @exposed(version="1.1")
    async def ask(self, ctx: Context) -> str:
        """Say what this manager itself may send to others of its topic."""
        from lamp_apis import NewLampApi
        return str(await NewLampApi(self.client).acan_send_version("1.1"))

    @exposed(version="1.1")
    async def elsewhere(self, ctx: Context, at: str, what: str) -> int:
        """Have the lamp of another host switched or dimmed."""
        from lamp_apis import NewLampApi
        lamp = await getattr(NewLampApi(self.client).on(host=at), what).acall("desk")
        return lamp.level

class Admin:
    rpc_version = "2.0"
    def __init__(self, manager):
        self.manager = manager
    @exposed(role="admin", version="2.0")
    def reset(self, ctx: Context) -> str:
        return self.manager.topic

LampManager.namespaces = {"admin": Admin}
''',
)

NEWEST = (
    NEW.replace("'1.1'", "'2.0'")
    .replace('version="1.1"', 'version="2.0"')
    .replace("@exposed()", '@exposed(version="2.0")')
)


class OldLamp(msgspec.Struct):
    """A lamp, as version 1.0 knows it."""

    name: str
    lit: bool


class NewLamp(msgspec.Struct):
    """A lamp, as version 1.1 knows it."""

    name: str
    lit: bool
    level: int = 100


class OldLampApi(RpcApi):
    """What version 1.0 offers."""

    topic = "lamp"
    rpc_version = "1.0"

    @remote()
    def switch(self, name: str, on: bool = True) -> OldLamp: ...


class NewLampApi(RpcApi):
    """What version 1.1 offers."""

    topic = "lamp"
    rpc_version = "1.1"

    @remote(since={"level": "1.1"})
    def switch(self, name: str, on: bool = True, level: int = 100) -> NewLamp: ...

    @remote(version="1.1")
    def dim(self, name: str) -> NewLamp: ...


class LampAdminApi(RpcApi):
    """What the namespace `admin` offers."""

    topic = "lamp"
    namespace = "admin"
    rpc_version = "2.0"

    @remote(version="2.0")
    def reset(self) -> str: ...
