"""Every table says what bounds it: a table that grows with time needs an option, and something that prunes by it."""

import pytest

from ostler.config.core_sections import CORE_SECTIONS
from ostler.store import Store
from ostler.store.session import current_session

PRUNED_BY = {
    "audit": ["audit.count", "audit.age"],
    "events": ["events.journal_count", "events.journal_age"],
    "operations": ["operations.count", "operations.age"],
}
"""Tables that grow with time, and the options by which their rows are removed."""
GOES_WITH = {
    "event_epochs": "events",  # each has at least one event, and goes with its last one
    "operation_steps": "operations",
}
"""Tables whose rows are removed with those of another table."""
BOUNDED_BY = {
    "capabilities": "the services of the known hosts",
    "event_positions": "the event handlers of managers, with the hosts and journaled topics that they follow",
    "event_topics": "the journaled topics of managers",
    "key_value": "the keys of drivers and managers, which remove what they no longer need",
    "locks": "the locks of the cluster that are held; a run removes those that earlier runs of its host have left",
    "ostler_migrations": "the migrations of the installed versions",
    "periodic_history": "the periodic tasks of managers, a row each with the last runs",
    "periodic_runs": "the periodic tasks of managers",
    "pulse": "a single row",
    "services": "the services of the known hosts",
    "tokens": "the tokens that administrators have made, 1000 at most",
    "volume_attachments": "what users have attached",
    "volume_backends": "the configured backends",
    "volume_snapshots": "what users have created",
    "volume_volumes": "what users have created",
}
"""Tables that have a row for each thing that exists, however long the daemon runs."""
HINT = (
    "say in this file what bounds the table: an option by which its rows are pruned (PRUNED_BY), the table that they "
    "go with (GOES_WITH), or what exists as often as it has rows (BOUNDED_BY)"
)


@pytest.fixture
def tables(path, clock):
    store = Store.open(path, clock=clock, migrations={"volume": "ostler_volume.migrations"})
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    found = store.read(lambda: [row[0] for row in current_session().database.execute_sql(query)])
    assert store.close() == ""
    assert not store.failed_migrations
    return set(found)


def test_every_table_says_what_bounds_it(tables):
    declared = [*PRUNED_BY, *GOES_WITH, *BOUNDED_BY]
    assert sorted(tables - set(declared)) == [], HINT
    assert sorted(set(declared) - tables) == [], "these tables do not exist any longer"
    assert len(declared) == len(set(declared)), "a table is bounded in one way"


def test_the_options_of_pruned_tables_exist():
    for options in PRUNED_BY.values():
        for option in options:
            section, _, name = option.partition(".")
            assert name in CORE_SECTIONS[section].model_fields, option


def test_rows_that_go_with_others_refer_to_a_table_that_is_pruned():
    assert set(GOES_WITH.values()) <= set(PRUNED_BY)
