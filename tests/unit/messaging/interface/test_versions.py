import asyncio

import pytest

from ostler.clock import FakeClock
from ostler.errors import StoreUnavailable, UnsupportedVersion
from ostler.messaging.interface.versions import VersionRegistry, check_version_cap, evaluate_upgrade
from ostler.types import MemberVersion
from ostler.version_numbers import parse_version


def member(host, version, counts=True, why="up"):
    return MemberVersion(host=host, version=version, counts=counts, why=why)


def facts(upgrade):
    return upgrade.upgrading, upgrade.cap, upgrade.newest, [(each.host, each.version) for each in upgrade.pinned_by]


def test_versions_are_numbers_and_nothing_else():
    assert parse_version("1.10") == (1, 10)
    assert [parse_version(text) for text in ("", "1", "1.", "a.b", "1.2.3")] == [None] * 5


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([], (False, "", "", [])),
        ([member("a", "1.1"), member("b", "1.1")], (False, "1.1", "1.1", [])),
        ([member("a", "1.9"), member("b", "1.10")], (True, "1.9", "1.10", [("a", "1.9")])),
        (
            [member("a", "1.2"), member("b", "1.0"), member("c", "1.1")],
            (True, "1.0", "1.2", [("b", "1.0"), ("c", "1.1")]),
        ),
        ([member("a", "1.1"), member("b", "1.0", counts=False)], (False, "1.1", "1.1", [])),
        ([member("a", "2.0"), member("b", "1.5")], (True, "2.0", "2.0", [("b", "1.5")])),
        ([member("a", "1.1"), member("b", "")], (False, "1.1", "1.1", [])),
    ],
)  # fmt: skip
def test_the_lowest_version_of_the_members_that_count_is_the_cap(members, expected):
    assert facts(evaluate_upgrade("lamp", members)) == expected


def test_a_major_version_that_is_asked_about_is_judged_by_itself():
    members = [member("a", "2.1"), member("b", "1.5"), member("c", "1.6")]
    found = evaluate_upgrade("lamp", members, major=1)
    assert facts(found) == (True, "1.5", "1.6", [("b", "1.5"), ("a", "2.1")])
    assert found.pinned_by[1].why == "up; has another major version"


def test_a_pin_wins_over_the_members_and_is_named():
    found = evaluate_upgrade("lamp", [member("a", "1.2"), member("b", "1.2")], "1.1")
    assert facts(found) == (True, "1.1", "1.2", [("", "1.1")])
    assert (found.pin, found.pinned_by[0].why) == ("1.1", "pinned by `rpc_pins` in [messaging]")
    assert facts(evaluate_upgrade("lamp", [member("a", "1.2")], "1.2")) == (False, "1.2", "1.2", [])


def test_what_is_above_the_cap_is_refused_and_says_who_holds_it_back():
    found = evaluate_upgrade("lamp", [member("a", "1.1"), member("old", "1.0"), member("b", "1.1")])
    check_version_cap(found, "1.0", "lamp.switch")
    with pytest.raises(UnsupportedVersion) as caught:
        check_version_cap(found, "1.1", "lamp.dim")
    assert str(caught.value) == (
        "lamp.dim needs version 1.1 of lamp, but at most 1.0 can be used now: old has 1.0; "
        "upgrade lamp on old; see `ostler service versions lamp`"
    )
    assert caught.value.details["pinned_by"] == ["old has 1.0"]
    assert (caught.value.details["asked"], caught.value.details["offered"]) == ("1.1", "1.0")
    check_version_cap(found, "1.1", "lamp.dim", host="a")
    check_version_cap(found, "1.9", "lamp.dim", host="stranger")
    with pytest.raises(UnsupportedVersion, match=r"at most 1\.0 can be used now"):
        check_version_cap(found, "1.1", "lamp.dim", host="old")
    check_version_cap(evaluate_upgrade("lamp", []), "7.3", "lamp.dim")


def test_a_pin_holds_for_every_host_and_the_advice_is_to_raise_it():
    found = evaluate_upgrade("lamp", [member("a", "1.1")], "1.0")
    with pytest.raises(UnsupportedVersion, match=r"pinned by `rpc_pins` in \[messaging\]; raise the pin; see"):
        check_version_cap(found, "1.1", "lamp.dim", host="a")
    with pytest.raises(UnsupportedVersion, match="upgrade its services"):
        check_version_cap(evaluate_upgrade("lamp", [member("a", "1.1")]), "1.2", "lamp.dim")


class Table:
    """Stands for the services table."""

    def __init__(self):
        self.members = {"lamp": [member("a", "1.1")]}
        self.looks = []
        self.error = None
        self.meanwhile = lambda: None

    def read(self, grace):
        self.looks.append(grace)
        self.meanwhile()
        if self.error:
            raise self.error
        return self.members

    async def run(self, work):
        return work()


@pytest.fixture
def table():
    return Table()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def upgrades(table, clock):
    upgrades = VersionRegistry(clock)
    upgrades.set_source(table.read, table.run)
    return upgrades


def test_the_records_are_looked_at_when_somebody_asks_and_then_not_for_a_moment(upgrades, table, clock):
    assert table.looks == []
    assert upgrades.get_upgrade("lamp").cap == "1.1"
    assert asyncio.run(upgrades.aget_upgrade("lamp")).cap == "1.1"
    assert table.looks == [300.0]
    clock.advance(2.1)
    assert [each.topic for each in asyncio.run(upgrades.list_upgrades())] == ["lamp"]
    assert table.looks == [300.0] * 2


def test_records_that_have_changed_are_looked_at_at_once(upgrades, table):
    assert upgrades.get_upgrade("lamp").cap == "1.1"
    table.members = {"lamp": [member("a", "1.2")]}
    assert upgrades.get_upgrade("lamp").cap == "1.1"
    upgrades.invalidate()
    assert upgrades.get_upgrade("lamp").cap == "1.2"


def test_a_change_while_the_records_are_read_is_not_missed(upgrades, table):
    table.meanwhile = upgrades.invalidate
    upgrades.get_upgrade("lamp")
    table.meanwhile = lambda: None
    table.members = {"lamp": [member("a", "1.2")]}
    assert asyncio.run(upgrades.aget_upgrade("lamp")).cap == "1.2"


def test_a_database_that_cannot_be_read_leaves_what_was_known(upgrades, table, clock):
    assert upgrades.get_upgrade("lamp").cap == "1.1"
    table.error = StoreUnavailable("locked")
    clock.advance(60)
    assert upgrades.get_upgrade("lamp").cap == "1.1"
    assert asyncio.run(upgrades.aget_upgrade("lamp")).cap == "1.1"


def test_a_reload_brings_other_pins_and_another_grace_time(upgrades, table):
    assert upgrades.get_upgrade("lamp").cap == "1.1"
    upgrades.configure({"lamp": "1.0", "other": "auto"}, 5.0)
    assert (upgrades.pin_of("lamp"), upgrades.pin_of("nothing")) == ("1.0", "auto")
    assert upgrades.get_upgrade("lamp").cap == "1.0"
    assert table.looks[-1] == 5.0
    assert [(each.topic, each.cap, each.pin) for each in asyncio.run(upgrades.list_upgrades())] == [
        ("lamp", "1.0", "1.0"), ("other", "", ""),
    ]  # fmt: skip
    upgrades.configure({}, 5.0)
    assert upgrades.get_upgrade("lamp").cap == "1.1"


def test_without_records_nothing_holds_anybody_back(clock):
    upgrades = VersionRegistry(clock)
    assert upgrades.get_upgrade("lamp").cap == ""
    assert asyncio.run(upgrades.aget_upgrade("lamp")).cap == ""
