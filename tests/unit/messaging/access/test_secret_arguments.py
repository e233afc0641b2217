"""Arguments that nobody but their method may see."""

import base64
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest

from ostler.errors import ContractError, InvalidArguments, InvalidInput, NotFound, OstlerError
from ostler.log.masking import mask_values
from ostler.messaging.access.secret_arguments import (
    SecretText,
    collect_all,
    has_secret,
    make_finder,
    redact_in_error,
    searchable_values,
)
from ostler.messaging.interface.exposure import exposed
from ostler.messaging.interface.method_signature import MethodSignature
from ostler.redaction import TOO_MANY_MASK, SecretValues

CANARY = "hunter2-canary"


class Login(msgspec.Struct):
    user: str
    password: SecretText


class Token(msgspec.Struct, tag=True):
    token: SecretText


class Nothing(msgspec.Struct, tag=True):
    text: str = ""


@dataclass
class Keys:
    keys: list[SecretText]
    name: str = ""


class Tree(msgspec.Struct):
    password: SecretText
    children: list["Tree"] = []


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        (str, False),
        (SecretText, True),
        (SecretText | None, True),
        (list[SecretText], True),
        (dict[str, Login], True),
        (Keys, True),
        (Tree, True),
        (Token | Nothing, True),
        (Nothing, False),
        (Annotated[str, msgspec.Meta(max_length=3)], False),
    ],
)
def test_a_secret_is_found_in_a_type_at_any_depth(kind, holds) -> None:
    assert has_secret(kind) is holds


@pytest.mark.parametrize(
    ("kind", "value", "secrets"),
    [
        (SecretText, "a", ["a"]),
        (SecretText | None, None, []),
        (list[SecretText], ["a", "b"], ["a", "b"]),
        (dict[str, SecretText], {"x": "a"}, ["a"]),
        (dict[SecretText, int], {"a": 1}, ["a"]),
        (tuple[str, SecretText], ("x", "a"), ["a"]),
        (Login, Login("bob", "a"), ["a"]),
        (list[Login], [Login("bob", "a")], ["a"]),
        (Keys, Keys(["a", "b"], "x"), ["a", "b"]),
        (Token | Nothing, Token("a"), ["a"]),
        (Token | Nothing, Nothing("x"), []),
        (Tree, Tree("a", [Tree("b")]), ["a", "b"]),
    ],
)
def test_the_secrets_in_a_value_are_found_and_nothing_else(kind, value, secrets) -> None:
    found = []
    make_finder(kind)(value, found)
    assert found == secrets


def test_arguments_are_looked_for_as_text_or_bytes_and_only_if_long_enough() -> None:
    assert searchable_values(["a secret", bytearray(b"\x00bytes"), memoryview(b"memory"), 123456, "a secret"]) == (
        "a secret", b"\x00bytes", b"memory", "123456",
    )  # fmt: skip
    assert searchable_values(["abcde", 12, "", b"bytes"]) == ()


def test_an_error_is_freed_of_secrets_and_stays_what_it_is() -> None:
    error = NotFound(f"no {CANARY} here", hint=f"not {CANARY}", deep={"list": [CANARY, 3]}, count=7)
    hidden = redact_in_error(error, (CANARY,))
    assert type(hidden) is NotFound
    assert (hidden.message, hidden.hint, hidden.details) == (
        "no *** here",
        "not ***",
        {"deep": {"list": ["***", 3]}, "count": 7},
    )
    assert CANARY not in repr(hidden) + str(hidden) + str(hidden.args)
    assert CANARY in error.message  # the one that was raised is the plugin's own
    other = InvalidInput("nothing of it")
    assert redact_in_error(other, (CANARY,)) is other


class Manager:
    @exposed(secret=["key"])
    def by_name(self, ctx: object, key: bytes, login: Login, name: str = "") -> None: ...

    @exposed(secret=["key"])
    def anything(self, ctx: object, key: Any) -> None: ...

    @exposed(secret=["kee"])
    def misspelt(self, ctx: object, key: str) -> None: ...

    @exposed()
    def number(self, ctx: object, pin: Annotated[int, msgspec.Meta(ge=0)], password: SecretText = "") -> None: ...


def test_secrets_are_declared_by_name_or_by_type() -> None:
    signature = MethodSignature(Manager().by_name, "lamp.by_name", ["key"])
    assert signature.secrets == {"key", "login"}
    assert signature.extract_secrets((b"some bytes", Login("bob", CANARY), "visible"), {}) == (b"some bytes", CANARY)


def test_a_secret_that_is_nested_too_deeply_is_refused_by_name() -> None:
    deep: object = CANARY
    for _ in range(5000):
        deep = [deep]
    signature = MethodSignature(Manager().anything, "lamp.anything", ["key"])
    with pytest.raises(InvalidArguments, match=r"argument 'key' of lamp\.anything is nested too deeply"):
        signature.extract_secrets((deep,), {})


def test_a_secret_that_is_no_argument_is_said_at_load() -> None:
    with pytest.raises(
        ContractError, match="marks the argument 'kee' as secret, but has no such argument; did you mean 'key'"
    ):
        MethodSignature(Manager().misspelt, "lamp.misspelt", ["kee"])


def test_secret_takes_names_and_not_a_name() -> None:
    with pytest.raises(TypeError, match=r'secret=\["password"\]'):
        exposed(secret="password")


@pytest.mark.parametrize(
    "given", [{"login": CANARY}, {"login": {"user": 1, "password": CANARY}}, {"login": [CANARY]}, {CANARY: 1}]
)
def test_arguments_of_the_wrong_type_do_not_repeat_a_secret(given) -> None:
    signature = MethodSignature(Manager().by_name, "lamp.by_name", ["key"])
    with pytest.raises(InvalidArguments) as caught:
        signature.decode(msgspec.msgpack.encode({"key": b"", **given}))
    if CANARY not in given:  # a name is no value
        assert CANARY not in str(caught.value) + repr(caught.value.details)


class Defaults:
    @exposed()
    def all_kinds(
        self, ctx: object, one: SecretText | None = None, two: list[SecretText] = [], three: str = "shown",  # noqa: B006
        four: SecretText = "changeme",
    ) -> None: ...  # fmt: skip


def test_what_a_signature_says_of_itself_holds_no_secret_default() -> None:
    signature = MethodSignature(Defaults().all_kinds, "lamp.all_kinds")
    assert signature.secrets == {"one", "two", "four"}
    assert "shown" in signature.to_text()
    assert "changeme" not in signature.to_text()


def test_everything_in_an_argument_is_found_whatever_it_is_in():
    found = []
    collect_all(["a", [], ["b", {"k": "c", "n": None}], ("d", {"e"}), 5, True, b"f"], found)
    assert sorted(map(str, found)) == sorted(["a", "b", "c", "d", "e", "5", "b'f'"])


def test_of_very_many_secrets_only_they_themselves_are_looked_for() -> None:
    many = tuple(f"secret-{number:05}" for number in range(30_000))
    encoded = base64.b64encode(many[7].encode()).decode()
    assert mask_values(f"{many[7]} {encoded}", many) == f"*** {encoded}"
    assert mask_values(f"{many[7]} {encoded}", many[:256]) == "*** ***"


def test_one_spelling_in_another_is_found_for_the_arguments_of_a_request() -> None:
    encoded = base64.b64encode(b"user:hunter2%21%2Fcanary").decode()
    assert mask_values(f"no {encoded}", ("hunter2!/canary",)).startswith("no dXNlcj")
    assert encoded[10:-4] not in mask_values(f"no {encoded}", ("hunter2!/canary",))


def test_no_text_is_shown_of_a_request_with_too_many_secret_values_to_look_for():
    secrets = searchable_values([f"value-{number}" for number in range(30_000)])
    assert secrets == (TOO_MANY_MASK,)
    error = redact_in_error(OstlerError("value-29999 is wrong", hint="use value-7", value="value-8", number=5), secrets)
    assert "value-" not in repr(error.details)
    assert error.message == error.hint == TOO_MANY_MASK
    assert searchable_values([f"value-{number}" for number in range(2000)]) != (TOO_MANY_MASK,)
    assert not SecretValues().add_arguments(secrets)
