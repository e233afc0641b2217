"""Secrets that systemd hands over."""

import pytest

from ostler.errors import ConfigurationError
from ostler.systemd import credential
from ostler.systemd.credentials import MAX_SIZE


@pytest.fixture
def environ(tmp_path):
    return {"CREDENTIALS_DIRECTORY": str(tmp_path)}


def test_a_credential_is_read_byte_for_byte(environ, tmp_path):
    (tmp_path / "token").write_bytes(b"s3cret\n\xff")
    assert credential("token", environ) == b"s3cret\n\xff"


def test_a_missing_credential_says_which_line_the_unit_lacks(environ):
    with pytest.raises(ConfigurationError, match="LoadCredential=token:") as caught:
        credential("token", environ)
    assert caught.value.exit_code == 78


def test_trap_without_systemd_a_wanted_credential_is_a_clear_error():
    with pytest.raises(ConfigurationError, match="systemd handed over none"):
        credential("token", {})


@pytest.mark.parametrize("name", ["", ".", "..", "../shadow", "/etc/shadow"])
def test_a_name_cannot_lead_out_of_the_folder(environ, name):
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        credential(name, environ)


def test_what_cannot_be_read_says_why(environ, tmp_path):
    (tmp_path / "token").mkdir()
    with pytest.raises(ConfigurationError, match="is a directory"):
        credential("token", environ)


def test_a_credential_that_is_too_large_is_refused_without_showing_it(environ, tmp_path):
    (tmp_path / "token").write_bytes(b"x" * (MAX_SIZE + 1))
    with pytest.raises(ConfigurationError, match="larger than") as caught:
        credential("token", environ)
    assert "xxx" not in str(caught.value)
