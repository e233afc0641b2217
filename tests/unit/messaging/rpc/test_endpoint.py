import pytest

from ostler.aio import WorkerPool
from ostler.errors import ContractError, MethodNotFound, NotExposed, UnsupportedVersion
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
    endpoint = Endpoint("lamp", "here", Manager(), pool, "1.1")
    assert set(endpoint.methods) == {"switch", "inherited"}
    assert endpoint.get_method("switch").full_name == "lamp.switch"
    for name in ("hidden", "wait"):
        with pytest.raises((NotExposed, MethodNotFound)):
            endpoint.get_method(name)


@pytest.mark.failure_mode("RPC", "a method that is not exposed")
@pytest.mark.parametrize("name", ["hidden"])
def test_a_method_that_is_not_exposed(pool, name):
    with pytest.raises(NotExposed, match=r"lamp\.hidden is not exposed"):
        Endpoint("lamp", "here", Manager(), pool, "1.1").get_method(name)


@pytest.mark.parametrize("name", ["__init__", "__class__", "_x", "attribute", "explosive", "nothing", ""])
def test_what_is_no_public_method_is_not_there(pool, name):
    with pytest.raises(MethodNotFound):
        Endpoint("lamp", "here", Manager(), pool, "1.1").get_method(name)


def test_methods_are_described(pool):
    inherited, switch = Endpoint("lamp", "here", Manager(), pool, "1.1").describe()
    assert (inherited.method, inherited.role, inherited.version, inherited.changes) == (
        "inherited", Role.VIEWER, "1.1", False,
    )  # fmt: skip
    assert (switch.topic, switch.doc, switch.result, switch.arguments[0].type) == ("lamp", "Switch.", "None", "bool")


def test_a_def_needs_threads():
    with pytest.raises(ContractError, match=r"lamp\.switch is a `def`"):
        Endpoint("lamp", "here", Manager(), None, "1.1")
    assert Endpoint("lamp", "here", Base(), None, "1.1").methods


def test_short_methods_run_in_the_threads_that_are_theirs(pool):
    class Works:
        @exposed()
        def copy(self, ctx: Context) -> None: ...

        @exposed(short=True)
        def delete(self, ctx: Context) -> None: ...

    short = WorkerPool("lamp-short", 1)
    endpoint = Endpoint("lamp", "here", Works(), pool, short_pool=short)
    assert endpoint.get_method("copy").pool is pool
    assert endpoint.get_method("delete").pool is short
    assert Endpoint("lamp", "here", Works(), pool).get_method("delete").pool is pool


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


def test_a_method_that_is_hidden_by_an_attribute_of_the_manager_is_refused_by_name(pool):
    class Talks:
        def __init__(self):
            self.log = print

        @exposed()
        def log(self, ctx: Context) -> None:
            """Never reached."""

    with pytest.raises(
        ContractError, match=r"lamp\.log cannot be exposed: the object has an instance attribute"
    ) as caught:
        Endpoint("lamp", "here", Talks(), pool)
    assert "rename" in caught.value.hint


def test_versions_are_checked_by_name():
    endpoint = Endpoint("lamp", "here", Base(), None, "1.1")
    endpoint.check_version("1.0")
    with pytest.raises(UnsupportedVersion) as caught:
        endpoint.check_version("1.2")
    assert caught.value.details == {
        "topic": "lamp", "host": "here", "offered": "1.1", "asked": "1.2", "namespace": "",
    }  # fmt: skip


class Admin:
    rpc_version = "2.3"

    @exposed(role="admin", version="2.1")
    async def reset(self, ctx: Context, hard: bool = False) -> str:
        """Put all back.

        Args:
            ctx: The request.
            hard: Whether what was made by hand
                goes as well.
        """
        return "reset"

    def hidden(self) -> None: ...


def test_a_namespace_is_called_by_its_name_and_has_a_version_of_its_own(pool):
    endpoint = Endpoint("lamp", "here", Manager(), pool, "1.1", namespaces={"admin": Admin()})
    assert endpoint.get_method("admin.reset").full_name == "lamp.admin.reset"
    endpoint.check_version("2.2", "admin.reset")
    endpoint.check_version("1.1", "switch")
    with pytest.raises(UnsupportedVersion, match=r"lamp.admin on here has version 2.3, version 2.4 was requested"):
        endpoint.check_version("2.4", "admin.reset")
    with pytest.raises(UnsupportedVersion, match=r"lamp on here has version 1.1"):
        endpoint.check_version("2.1", "switch")
    with pytest.raises(NotExposed, match=r"lamp\.admin\.hidden is not exposed"):
        endpoint.get_method("admin.hidden")
    for name in ("admin", "other.reset", "admin.nothing", "admin.reset.more", ".reset", "admin."):
        endpoint.check_version("9.9" if "other" in name else "", name)
        with pytest.raises(MethodNotFound):
            endpoint.get_method(name)


def test_a_namespace_is_described_last_with_version_and_docs_of_arguments(pool):
    endpoint = Endpoint("lamp", "here", Manager(), pool, "1.1", namespaces={"admin": Admin()})
    described = endpoint.describe(schema=True)
    assert [(each.method, each.namespace, each.topic_version) for each in described] == [
        ("inherited", "", "1.1"), ("switch", "", "1.1"), ("admin.reset", "admin", "2.3"),
    ]  # fmt: skip
    reset = described[-1]
    assert reset.arguments[0].doc == "Whether what was made by hand goes as well."
    assert reset.arguments_schema["$defs"]["Arguments"]["properties"]["hard"] == {"type": "boolean", "default": False}
    assert reset.result_schema == {"type": "string"}
    assert endpoint.describe()[-1].arguments_schema is None


@pytest.mark.parametrize(
    ("namespaces", "words"),
    [
        ({"switch": Admin()}, "a namespace 'switch' and a method of that name; rename one of them"),
        ({"a.b": Admin()}, "a namespace 'a.b', which is not a valid name"),
        ({"_a": Admin()}, "a namespace '_a', which is not a valid name"),
        ({"base": Base()}, 'lamp.base.inherited was added in version 1.1, .* is 1.0; raise `rpc_version` to "1.1"'),
    ],
)
def test_namespaces_that_clash_or_are_older_than_their_methods_are_refused_at_load(pool, namespaces, words):
    with pytest.raises(ContractError, match=words):
        Endpoint("lamp", "here", Manager(), pool, "1.1", namespaces=namespaces)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.2", 'lamp.m was added in version 1.2, but its `rpc_version` is 1.1; raise `rpc_version` to "1.2"'),
        ("0.9", 'its `rpc_version` is 1.1; set `version="1.0"`'),
        ("1", "the version of lamp.m, '1', is not a valid version"),
        ("1.10.0", "is not a valid version"),
        ("", "is not a valid version"),
    ],
)
def test_a_method_newer_than_its_manager_is_refused_at_load(version, words):
    class Newer:
        @exposed(version=version)
        async def m(self, ctx: Context) -> None: ...

    with pytest.raises(ContractError, match=words):
        Endpoint("lamp", "here", Newer(), None, "1.1")


def test_names_of_errors_are_told_apart_up_to_a_limit(pool):
    endpoint = Endpoint("lamp", "here", Manager(), pool, "1.1")
    for number in [*range(10_000), 5]:
        endpoint.count_error(type(f"Error{number}", (Exception,), {})())
    assert len(endpoint.errors) == 101
    assert (endpoint.errors["Error5"], endpoint.errors["other"]) == (2, 9900)
