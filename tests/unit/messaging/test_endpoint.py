import functools

import pytest

from ostler.aio import WorkerPool
from ostler.errors import ContractError, NotExposed, TargetNotFound, UnsupportedVersion
from ostler.messaging import Context, Endpoint, exposed
from ostler.types import Role


class Base:
    @exposed(role="viewer", version="1.1", changes=False)
    async def inherited(self, ctx: Context) -> int:
        """From the base."""
        return 1


class Manager(Base):
    attribute = 5

    @exposed()
    def switch(self, ctx: Context, on: bool = True) -> None:
        """Switch."""

    def hidden(self, ctx: Context) -> None: ...

    @property
    def explosive(self) -> int:
        raise AssertionError("a property is never evaluated")


@pytest.fixture
def pool():
    pool = WorkerPool("lamp", 1)
    yield pool
    pool.close()
    pool.join(5)


def test_only_what_is_exposed_is_offered(pool):
    endpoint = Endpoint("lamp", "here", Manager(), pool)
    assert set(endpoint.methods) == {"switch", "inherited"}
    assert endpoint.method("switch").where == "lamp.switch"
    for name in ("hidden", "wait"):
        with pytest.raises((NotExposed, TargetNotFound)):
            endpoint.method(name)


@pytest.mark.parametrize("name", ["hidden"])
def test_trap_a_method_that_is_not_exposed(pool, name):
    with pytest.raises(NotExposed, match=r"lamp\.hidden is not offered"):
        Endpoint("lamp", "here", Manager(), pool).method(name)


@pytest.mark.parametrize("name", ["__init__", "__class__", "_x", "attribute", "explosive", "nothing", ""])
def test_what_is_no_public_method_is_not_there(pool, name):
    with pytest.raises(TargetNotFound):
        Endpoint("lamp", "here", Manager(), pool).method(name)


def test_methods_are_described(pool):
    inherited, switch = Endpoint("lamp", "here", Manager(), pool).describe()
    assert (inherited.method, inherited.role, inherited.version, inherited.changes) == (
        "inherited", Role.VIEWER, "1.1", False,
    )  # fmt: skip
    assert (switch.topic, switch.doc, switch.result, switch.arguments[0].type) == ("lamp", "Switch.", "None", "bool")


def test_a_def_needs_threads():
    with pytest.raises(ContractError, match=r"lamp\.switch is a `def`"):
        Endpoint("lamp", "here", Manager(), None)
    assert Endpoint("lamp", "here", Base(), None).methods


def test_generators_are_refused_at_load(pool):
    class Yields:
        @exposed()
        def many(self, ctx: Context) -> list[int]:
            yield 1

    class AsyncYields:
        @exposed()
        async def many(self, ctx: Context) -> list[int]:
            yield 1

    for kind in (Yields, AsyncYields):
        with pytest.raises(ContractError, match="yields"):
            Endpoint("lamp", "here", kind(), pool)


def test_a_wrapper_stands_around_each_method_and_keeps_its_kind(pool):
    seen = []

    def wrap(method):
        @functools.wraps(method)
        def wrapped(*values, **named):
            seen.append(method.__name__)
            return method(*values, **named)

        return wrapped

    class OnlyDef:
        @exposed()
        def switch(self, ctx: Context) -> int:
            return 5

    endpoint = Endpoint("lamp", "here", OnlyDef(), pool, wrap=wrap)
    assert endpoint.methods["switch"].call(None) == 5
    assert seen == ["switch"]
    with pytest.raises(ContractError, match="must keep"):
        Endpoint("lamp", "here", Base(), None, wrap=wrap)


def test_versions_are_checked_by_name():
    endpoint = Endpoint("lamp", "here", Base(), None, "1.1")
    endpoint.check_version("1.0")
    with pytest.raises(UnsupportedVersion) as caught:
        endpoint.check_version("1.2")
    assert caught.value.facts == {"topic": "lamp", "host": "here", "offered": "1.1", "asked": "1.2"}
