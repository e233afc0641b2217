import pytest

from ostler.version_numbers import is_compatible, parse_version


@pytest.mark.parametrize(
    ("offered", "asked", "can"),
    [("1.2", "", True), ("1.2", "1.2", True), ("1.2", "1.0", True), ("1.2", "1.3", False), ("2.0", "1.9", False),
     ("1.2", "x", False), ("1.2", "1", False), ("1.2", "1.2.3", False)],
)  # fmt: skip
def test_a_service_speaks_its_major_version_up_to_its_minor(offered, asked, can):
    assert is_compatible(offered, asked) is can


def test_versions_are_compared_as_numbers():
    assert parse_version("1.10") == (1, 10)
    assert parse_version("1.10") > parse_version("1.9")


@pytest.mark.parametrize(
    "text", ["", "1", "1.", ".1", "1.2.3", "01.2", "1.-2", " 1.2", "1.2\n", "auto", "1234567.0", 1.2, None]
)
def test_what_is_no_version_is_none(text):
    assert parse_version(text) is None
