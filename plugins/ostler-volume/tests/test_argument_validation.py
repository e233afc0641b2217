from __future__ import annotations

import pytest

from ostler import InvalidInput
from ostler_volume.argument_validation import (
    MAX_NAME_LENGTH,
    Origin,
    parse_name,
    parse_origin,
    parse_volume_size,
    split_snapshot_name,
)
from ostler_volume.errors import BadImage, BadName, BadSize, SnapshotNotFound


@pytest.mark.parametrize("name", ["a", "A-1", "db.data_2", "0", "x" * MAX_NAME_LENGTH])
def test_a_plain_name_passes(name):
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/etc", "-rf", ".hidden", "a b", "a\n", "é", "a@b", "a\0", "x" * (MAX_NAME_LENGTH + 1), "٣"],
)
def test_a_name_that_no_file_should_have_is_refused(name):
    with pytest.raises(BadName) as caught:
        parse_name(name)
    assert "letters, digits" in caught.value.hint


@pytest.mark.parametrize(("value", "size"), [(512, 512), ("10GiB", 10 * 2**30), (1, 512), ("500MB", 500_000_256)])
def test_a_size_is_bytes_or_text_and_becomes_whole_sectors(value, size):
    assert parse_volume_size(value) == size


@pytest.mark.parametrize("value", [-1, 0, "0", "-1", "ten", "", "10 lamps", "1.5B", True, 2**63, 2**70, "99999EiB"])
def test_a_size_that_can_never_be_right_is_refused(value):
    with pytest.raises(BadSize) as caught:
        parse_volume_size(value)
    assert caught.value.hint


def test_an_origin_is_one_of_three_or_none():
    assert parse_origin("", "", "") == Origin()
    assert parse_origin("/a.raw", "", "").label() == "image:/a.raw"
    assert parse_origin("", "gold", "").label() == "volume:gold"
    assert parse_origin("", "", "gold@v1").label() == "snapshot:gold@v1"
    assert Origin().label() == ""


@pytest.mark.parametrize(
    ("origin", "error"),
    [
        (("/a", "b", ""), InvalidInput),
        (("", "b", "c@d"), InvalidInput),
        (("a.raw", "", ""), BadImage),
        (("/a\0b", "", ""), BadImage),
        (("", "../b", ""), BadName),
        (("", "", "a@../b"), BadName),
        (("", "", "noat"), SnapshotNotFound),
    ],
)
def test_a_wrong_origin_is_refused_by_name(origin, error):
    with pytest.raises(error):
        parse_origin(*origin)


def test_a_snapshot_is_written_with_its_volume():
    assert split_snapshot_name("gold@v1") == ("gold", "v1")
