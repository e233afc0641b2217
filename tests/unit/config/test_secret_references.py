from contextlib import suppress

import pytest

from ostler.config import Field, OptionsModel, Secret, load_text, validate
from ostler.config.secret_references import SecretReader
from ostler.errors import ConfigurationError
from ostler.redaction import SECRETS

START = '[services.lamp]\nmanager = "x"\n'


def test_a_credential_is_read_from_the_directory_that_systemd_made(lamp, tmp_path):
    (tmp_path / "lamp-token").write_text("s3cret\n", encoding="utf-8")
    text = START + 'token = {credential = "lamp-token"}\n'
    configuration = lamp(text, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert configuration.services["lamp"].token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(configuration)
    assert "s3cret" not in str(configuration.values())


def test_a_secret_may_be_the_content_of_a_file(lamp, tmp_path):
    (tmp_path / "f").write_text("a\nb\n\n", encoding="utf-8")
    configuration = lamp(START + f'token = {{file = "{tmp_path}/f"}}\n')
    assert configuration.services["lamp"].token.get_secret_value() == "a\nb\n"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ('"plain"', "a secret must not be written in the configuration; write {credential"),
        ("5", "a secret must not be written in the configuration"),
        ("{}", "a secret must not be written in the configuration"),
        ('{password = "x"}', "not a valid reference to a secret"),
        ("{file = 5}", "not a valid reference to a secret"),
        ('{credential = ""}', "not a valid reference to a secret"),
        ('{file = "etc/x"}', 'the path of the secret file "etc/x" is not absolute'),
        ('{file = "/nowhere/x"}', "secret file /nowhere/x not found"),
        ('{file = "/"}', "is a directory"),
        ('{credential = "../x"}', '"../x" is not a valid credential name'),
        ('{credential = ".."}', '".." is not a valid credential name'),
        ('{credential = "x"}', "$CREDENTIALS_DIRECTORY is not set; add `LoadCredential=x:/path/to/it` to the unit"),
    ],
)  # fmt: skip
def test_a_secret_that_cannot_be_had_is_reported_with_its_place(problems, value, what):
    (problem,) = problems(START + f"token = {value}\n")
    assert problem.startswith("ostler.toml:3:9: services.lamp.token: ")
    assert what in problem
    assert "plain" not in problem


def test_a_missing_credential_is_reported_by_name(problems, tmp_path):
    text = START + 'token = {credential = "lamp-token"}\n'
    (problem,) = problems(text, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert f'credential "lamp-token" not found in {tmp_path}' in problem


def test_a_check_offline_asks_for_no_credential_but_for_the_right_form(lamp, problems):
    assert lamp(START + 'token = {credential = "x"}\n', offline=True)
    assert len(problems(START + 'token = {credentials = "x"}\n', offline=True)) == 1


def test_a_secret_that_breaks_a_rule_is_not_shown(problems, tmp_path):
    (tmp_path / "f").write_text("ab", encoding="utf-8")
    (problem,) = problems(START + f'token = {{file = "{tmp_path}/f"}}\n')
    assert problem.endswith("got ***")
    assert '"ab"' not in problem


def test_files_that_are_no_text_or_too_large_are_refused(problems, tmp_path):
    (tmp_path / "f").write_bytes(b"\xff")
    (tmp_path / "g").write_bytes(b"x" * (1024 * 1024 + 1))
    assert "is not valid text" in problems(START + f'token = {{file = "{tmp_path}/f"}}\n')[0]
    assert "is larger than 1MiB" in problems(START + f'token = {{file = "{tmp_path}/g"}}\n')[0]


def test_secrets_in_tables_inside_tables_are_found(tmp_path):
    class Inner(OptionsModel):
        key: Secret = Field(help="")

    class Outer(OptionsModel):
        inner: Inner = Field(help="")

    (tmp_path / "f").write_text("deep", encoding="utf-8")
    raw = load_text(f'[outer.inner]\nkey = {{file = "{tmp_path}/f"}}\n')
    configuration = validate(raw, {("outer",): Outer}, {})
    assert configuration.sections["outer"].inner.key.get_secret_value() == "deep"
    assert "deep" not in str(configuration.values())


def test_the_table_that_was_read_is_left_as_it_was():
    class Options(OptionsModel):
        key: Secret = Field(help="")

    table = {"key": {"credential": "x"}}
    reader = SecretReader({}, offline=True)
    assert reader.resolve(table, Options) != table
    assert table == {"key": {"credential": "x"}}


class Account(OptionsModel):
    user: str = Field("", help="")
    password: Secret | None = Field(None, help="")


class Nested(OptionsModel):
    accounts: dict[str, Account] = Field({}, help="")
    more: list[Account] | None = Field(None, help="")
    tokens: list[Secret] = Field([], help="")
    pairs: dict[str, list[Secret]] = Field({}, help="")


@pytest.mark.parametrize("rest", ["", "tokens = 5\n"])
def test_secrets_in_lists_and_nested_tables_are_found_also_when_the_table_is_wrong(rest):
    text = f"""[nested]
{rest or 'tokens = ["plain-token-1"]'}
pairs.x = ["plain-token-2"]
accounts.one = {{user = "somebody", password = "plain-password-1"}}
more = [{{password = "plain-password-2"}}]
"""
    configured = "plain-token-2 plain-password-1 plain-password-2"
    with suppress(ConfigurationError):
        validate(load_text(text), {("nested",): Nested}, {})
    assert SECRETS.redact(configured) == "*** *** ***"
    assert SECRETS.redact("plain-token-1 of somebody") == ("plain-token-1 of somebody" if rest else "*** of somebody")
