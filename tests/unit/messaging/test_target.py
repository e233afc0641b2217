import pytest

from ostler.messaging.target import did_you_mean, speaks


def test_the_nearest_word_is_offered_else_what_there_is():
    assert did_you_mean("volum", ["volume", "scheduler"]) == "did you mean 'volume'?"
    assert did_you_mean("x", ["volume", "scheduler"]) == "there is: scheduler, volume"
    assert did_you_mean("x", []) == ""
    assert did_you_mean("x", [f"word{n}" for n in range(30)]) == ""


@pytest.mark.parametrize(
    ("offered", "asked", "can"),
    [("1.2", "", True), ("1.2", "1.2", True), ("1.2", "1.0", True), ("1.2", "1.3", False), ("2.0", "1.9", False),
     ("1.2", "x", False), ("1.2", "1", False), ("1.2", "1.2.3", False)],
)  # fmt: skip
def test_a_service_speaks_its_major_version_up_to_its_minor(offered, asked, can):
    assert speaks(offered, asked) is can
