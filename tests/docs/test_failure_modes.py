"""The failure modes that are closed, each with its tests; `docs/failure-modes.md` is made from this table.

python tests/docs/test_failure_modes.py > docs/failure-modes.md
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "failure-modes.md"

FORKS = "tests/functional/test_plugin_forks.py::test_trap_"
CONTAINER = "tests/functional/test_container.py::test_trap_"
LIFE = "tests/functional/test_daemon_lifecycle.py::test_trap_"
BAD = "tests/functional/test_bad_configuration.py::test_trap_"
DEVICES = "tests/functional/test_driver_failures.py::test_trap_"
PERIODIC = "tests/functional/test_periodic.py::test_trap_"
MACHINE = "tests/functional/test_host_environment.py::test_trap_"
HOST = "tests/unit/plugins/test_plugin_host.py::test_trap_"
REFERENCE = "tests/unit/plugins/test_import_path.py::test_trap_"
CONTRACT = "tests/unit/driver/test_contract.py::test_trap_"
BACKENDS = "tests/unit/service/test_service_drivers.py::test_trap_"
RECONCILE = "plugins/ostler-volume/tests/test_reconciler.py::test_trap_"
VOLUMES = "plugins/ostler-volume/tests/test_"
IMAGES = "plugins/ostler-volume/tests/test_image_thread.py::test_trap_"
DRIVERS = "tests/unit/driver/test_drivers.py::test_trap_"
CALLS = "tests/contract/test_transport_calls.py::test_trap_"
STREAMS = "tests/contract/test_transport_streams.py::test_trap_"
RETRIES = "tests/contract/test_transport_retries.py::test_trap_"
WRONG = "tests/contract/test_transport_invalid_calls.py::test_trap_"
REAL_RPC = "tests/functional/test_rpc_failure_modes.py::test_trap_"
GARBAGE = "tests/functional/test_invalid_messages.py::test_trap_"
HOSTS = "tests/functional/test_hosts.py::test_trap_"
ENVELOPE = "tests/unit/messaging/wire/test_envelope.py::test_trap_"
UNFIT = "tests/unit/messaging/rpc/test_unencodable_results.py::test_trap_"
WRITER = "tests/unit/store/test_writer.py::test_trap_"
ENDPOINT = "tests/unit/messaging/rpc/test_endpoint.py::test_trap_"
SIGNATURE = "tests/unit/messaging/interface/test_method_signature.py::test_trap_"
DUPLICATES = "tests/unit/messaging/rpc/test_dedup.py::test_trap_"
REAL_STREAMS = "tests/functional/test_streams.py::test_trap_"
EVENTS = "tests/functional/test_events.py::test_trap_"
ON_BOTH = "tests/contract/test_transport_events.py::test_trap_"
SCHEDULER = "tests/unit/periodic_tasks/test_scheduler.py::test_trap_"

FAILURE_MODES: dict[str, dict[str, list[str]]] = {
    "Life": {
        "READY only when work is possible": [
            LIFE + "ready_only_when_work_is_possible",
            "tests/systemd/test_start.py::test_trap_ready_only_when_work_is_possible",
        ],
        "SIGHUP before the handler is set": [LIFE + "sighup_before_the_handler_is_set"],
        "SIGHUP with a file that does not parse": [LIFE + "sighup_with_a_file_that_does_not_parse"],
        "SIGHUP with a bad typed value": [LIFE + "sighup_with_a_bad_typed_value"],
        "SIGHUP then SIGTERM": [LIFE + "sighup_then_sigterm"],
        "50 SIGHUPs in a second": [LIFE + "50_sighups_in_a_second"],
        "SIGTERM during `init_host`": [LIFE + "sigterm_during_init_host"],
        "SIGTERM with a driver hung in a native call": [LIFE + "sigterm_with_a_driver_hung_in_a_native_call"],
        "second SIGTERM": [LIFE + "second_sigterm", "tests/systemd/test_stop.py::test_trap_a_second_sigterm_is_fast"],
        "`stop` before `start`": [LIFE + "stop_before_start"],
        "failed start leaves nothing behind": [LIFE + "failed_start_leaves_nothing_behind"],
        "a manager that raises `SystemExit` or `KeyboardInterrupt`": [
            LIFE + "a_manager_that_raises_system_exit_or_keyboard_interrupt_at_start",
            LIFE + "a_method_that_raises_system_exit_or_keyboard_interrupt",
        ],
        "an eternal task that ends": [
            "tests/unit/daemon/test_daemon.py::test_trap_an_eternal_task_that_ends_stops_the_daemon_with_its_reason",
            "tests/unit/aio/test_tasks.py::test_trap_an_eternal_task_that_ends_is_reported_with_its_reason",
        ],
    },
    "Plugins": {
        "one that fails to import": [
            BAD + "a_plugin_that_fails_to_import", HOST + "a_plugin_that_fails_to_import_fails_alone",
        ],
        "one that raises in a hook": [
            BAD + "a_plugin_that_raises_in_a_hook",
            HOST + "a_plugin_that_raises_in_a_hook_contributes_nothing_and_hides_nobody",
        ],
        "a misspelt hook": [BAD + "a_misspelt_hook", HOST + "a_misspelt_hook_is_an_error_that_guesses"],
        "an async hook": [BAD + "an_async_hook", HOST + "an_async_hook_is_refused_before_it_is_called"],
        "two with one name": [
            BAD + "two_plugins_with_one_name",
            HOST + "two_plugins_with_one_name_the_second_is_left_out_and_both_are_named",
        ],
        "one built for another API version": [
            BAD + "a_plugin_built_for_another_api_version",
            HOST + "a_plugin_for_another_api_version_is_refused_by_name",
        ],
        "a driver that is an empty class": [
            DEVICES + "a_driver_that_is_an_empty_class_and_one_with_a_wrong_signature",
            CONTRACT + "a_driver_that_is_an_empty_class",
            CONTRACT + "an_empty_class_below_a_contract_without_abstract_methods",
        ],
        "a driver with a wrong signature": [
            DEVICES + "a_driver_that_is_an_empty_class_and_one_with_a_wrong_signature",
            CONTRACT + "a_driver_with_a_wrong_signature",
        ],
        "a driver that never comes back": [
            DEVICES + "a_driver_that_never_comes_back",
            DEVICES + "a_driver_that_hangs_is_stuck_by_name_while_the_others_work",
            DRIVERS + "a_driver_that_never_comes_back_is_stuck_while_the_others_work",
        ],
        "eight callers of a backend that hangs, and somebody who wants another one": [
            DEVICES + "callers_of_a_hung_driver_take_no_thread_from_others_and_are_answered",
            DRIVERS + "callers_of_a_driver_that_hangs_take_no_thread_of_their_service",
            DRIVERS + "a_driver_that_is_found_stuck_answers_all_that_wait_for_it_at_once",
        ],
        "four backends that hang at the start or at a reload": [
            BACKENDS + "four_backends_that_hang_while_they_are_taken_over_take_as_long_as_one",
            BACKENDS + "a_reload_waits_for_drivers_side_by_side",
        ],
        "a reload while a driver works for hours": [
            DEVICES + "new_options_of_a_driver_at_work_hold_up_nobody_and_come_by_themselves",
        ],
        "an image on a dead mount": [
            IMAGES + "a_step_that_hangs_is_given_up_by_name_and_its_place_refused_at_once",
            IMAGES + "an_image_that_hangs_while_copied_ends_the_copy_and_tells_meanwhile",
        ],
        "thousands of attached volumes after a reboot": [
            RECONCILE + "many_volumes_after_a_reboot_cost_one_look_and_a_few_writes",
        ],
        "one that fails three times and then works": [
            DEVICES + "a_driver_that_fails_three_times_and_then_works",
            DRIVERS + "a_driver_that_fails_three_times_and_then_works",
        ],
        "a manager named by class, module, object and factory": [
            DEVICES + "a_manager_named_by_class_module_object_and_factory",
            REFERENCE + "a_manager_named_by_class",
            REFERENCE + "a_manager_named_by_module",
            REFERENCE + "a_manager_named_by_object",
            REFERENCE + "a_manager_named_by_factory",
        ],
    },
    "RPC": {
        "10,000 calls to a missing method": [
            REAL_RPC + "10000_calls_to_a_missing_method",
            CALLS + "10000_calls_to_a_missing_method",
            WRONG + "10000_calls_to_a_missing_method_leave_no_descriptor_and_no_thread",
        ],
        "a method that is not exposed": [
            WRONG + "a_method_that_is_not_exposed", ENDPOINT + "a_method_that_is_not_exposed",
        ],
        "arguments of the wrong type, too many, too few, unknown": [
            WRONG + "arguments_of_the_wrong_type_too_many_too_few_unknown",
            SIGNATURE + "arguments_of_the_wrong_type_too_many_too_few_unknown",
        ],
        "a caller that goes away": [
            CALLS + "a_caller_that_goes_away", WRONG + "a_caller_that_goes_away_is_known_before_the_next_beat",
            WRONG + "a_caller_that_does_not_read_holds_up_nobody", STREAMS + "a_reader_that_goes_away",
            RETRIES + "a_connection_lost_while_a_request_that_may_come_again_is_served",
            REAL_RPC + "a_caller_that_is_killed", REAL_STREAMS + "a_reader_that_is_killed_ends_its_stream",
        ],
        "a server that dies in the middle": [
            CALLS + "a_server_that_goes_away_is_known_at_once",
            CALLS + "a_server_that_falls_silent_is_known_before_the_deadline",
            "tests/unit/messaging/unix/test_unix_transport.py::test_trap_a_server_that_dies_in_the_middle_is_known_within_a_second",
            "tests/unit/messaging/unix/test_unix_transport.py::test_trap_a_server_that_dies_is_known_to_the_sync_client_too",
            STREAMS + "a_server_that_dies_in_a_stream",
            STREAMS + "a_server_that_falls_silent_in_a_stream",
            REAL_RPC + "a_daemon_that_is_killed_under_a_call",
            REAL_STREAMS + "a_daemon_killed_in_the_middle_of_a_stream_is_known_within_5_seconds",
            REAL_STREAMS + "a_daemon_killed_under_a_call_with_retries_is_known_within_5_seconds",
            HOSTS + "a_server_on_another_host_that_dies_is_known_within_seconds",
            HOSTS + "a_cable_that_is_pulled_is_known_within_seconds_and_found_again",
            HOSTS + "a_connection_that_is_open_on_one_side_only",
        ],
        "a deadline that has passed before work begins": [
            CALLS + "a_deadline_that_has_passed_before_work_begins",
            WRONG + "a_deadline_that_had_passed_when_the_request_came",
        ],
        "cancel of a sync and of an async method": [
            CALLS + "cancel_of_a_sync_and_of_an_async_method",
            "tests/contract/test_transport_nested.py::test_trap_cancel_reaches_what_a_method_has_called",
            "tests/unit/messaging/rpc/test_server_streams.py::test_trap_cancel_of_a_strangers_or_an_ended_stream",
        ],
        "the same request twice": [
            RETRIES + "the_same_request_twice",
            DUPLICATES + "a_request_that_may_come_again_is_not_the_request_of_somebody_else",
        ],
        "a full queue": [CALLS + "a_full_queue", STREAMS + "a_slow_reader_of_large_items_costs_the_server_no_memory"],
        "an oversized message": [
            CALLS + "an_oversized_message", STREAMS + "an_item_that_is_too_large",
            GARBAGE + "a_frame_far_above_the_limit_costs_only_its_sender_the_connection",
        ],
        "garbage frames, truncated and random (fuzzed)": [
            "tests/contract/test_transport_invalid_messages.py::test_trap_garbage_frames_truncated_and_random",
            GARBAGE + "malformed_frames_of_all_kinds_are_counted_and_others_are_answered",
            ENVELOPE + "random_bytes_are_never_more_than_a_bad_envelope",
            ENVELOPE + "truncated_and_bent_messages_are_never_more_than_a_bad_envelope",
            "tests/unit/messaging/rpc/test_server_streams.py::test_trap_credit_that_is_none_negative_huge_or_for_no_stream",
            "tests/fuzz/test_fuzz_wire.py::test_trap_a_million_frames_truncated_mutated_and_random",
        ],
        "a reply that cannot be encoded": [
            CALLS + "a_reply_that_cannot_be_encoded", STREAMS + "an_item_that_cannot_be_encoded",
            UNFIT + "a_reply_or_item_that_cannot_be_encoded_is_an_error_by_name",
            UNFIT + "an_error_that_cannot_be_encoded_is_an_error_all_the_same",
            UNFIT + "progress_that_cannot_be_encoded_holds_up_no_call",
        ],
        "an exception the client does not know": [
            REAL_RPC + "an_exception_the_client_does_not_know", CALLS + "an_exception_the_client_does_not_know",
        ],
        "a client of an older and of a newer version": [
            "tests/functional/test_versions.py::test_trap_a_client_of_an_older_and_of_a_newer_version",
            WRONG + "a_client_of_an_older_and_of_a_newer_version",
            WRONG + "a_client_that_hears_of_fields_it_does_not_know",
        ],
        "a uid without a role": [
            CALLS + "a_uid_without_a_role",
            "tests/unit/messaging/unix/test_unix_transport.py::test_trap_a_uid_without_a_role_gets_nothing_on_a_real_socket",
            "tests/functional/test_audit.py::test_trap_the_refusal_of_a_uid_without_a_role_is_kept",
            HOSTS + "a_key_that_is_not_known_gets_nothing_and_is_logged_once",
        ],
    },
    "Events": {
        "a subscriber that joins late": [
            EVENTS + "a_late_joiner_asks_for_the_last_event_of_each_key",
            ON_BOTH + "a_subscriber_that_joins_late_sees_what_comes_from_then_on",
            ON_BOTH + "a_late_joiner_gets_the_last_event_of_each_key_and_then_what_comes",
        ],
        "one that is slow": [
            EVENTS + "a_slow_subscriber_is_told_and_can_fetch_again_what_it_missed",
            ON_BOTH + "a_slow_subscriber_costs_only_itself_and_sees_the_gap",
        ],
        "one that vanishes": [
            EVENTS + "a_subscriber_that_vanishes_harms_nobody",
            ON_BOTH + "a_subscriber_that_vanishes",
        ],
        "a gap is seen": [
            ON_BOTH + "a_gap_is_seen",
            ON_BOTH + "a_subscriber_is_told_of_its_loss_though_no_event_comes_any_more",
            EVENTS + "what_the_journal_no_longer_has_is_a_gap",
        ],
        "replay from a number over a restart": [
            EVENTS + "replay_from_a_number_over_a_restart",
            ON_BOTH + "replay_from_a_number_goes_on_live_without_a_seam",
            ON_BOTH + "a_gap_of_a_journaled_topic_can_be_fetched_again",
        ],
    },
    "State": {
        "nothing acknowledged is lost by `kill -9`": [WRITER + "kill_9_loses_nothing_that_was_acknowledged"],
        "record deleted under a live service": [
            "tests/unit/store/records/test_service_records.py::test_trap_record_deleted_under_a_live_service",
        ],
        "database locked for a minute": [
            WRITER + "database_locked_for_a_minute",
            "tests/unit/service/test_heartbeat_reporter.py::test_trap_database_locked_for_a_minute",
        ],
        "disk full and then not": [
            WRITER + "disk_full_and_then_not",
            "tests/unit/store/test_real_disks.py::test_trap_disk_full_and_then_not_on_a_real_one",
        ],
        "database read-only": [
            WRITER + "database_read_only_for_a_while",
            "tests/unit/store/sqlite_files/test_sqlite_connection.py::test_trap_database_read_only_at_start",
            "tests/unit/store/test_real_disks.py::test_trap_read_only_file_system_and_then_not",
        ],
        "database corrupt": [
            "tests/unit/store/test_store.py::test_trap_database_corrupt_at_start_is_said_with_the_way_out",
        ],
        "database of a newer schema": ["tests/unit/store/test_migrate.py::test_trap_database_of_a_newer_schema"],
        "two daemons on one host and name": [
            "tests/unit/store/sqlite_files/test_sqlite_connection.py::test_trap_two_daemons_on_one_host_and_name",
            "tests/unit/daemon/test_daemon.py::test_trap_two_daemons_on_one_state",
            LIFE + "a_second_daemon_on_the_same_root_is_refused",
        ],
        "clock set an hour back and forth": [
            "tests/unit/store/records/test_service_records.py::test_trap_clock_set_an_hour_back_and_forth",
        ],
        "heartbeats on time during 50,000 writes": [WRITER + "heartbeats_on_time_during_50000_writes"],


        "a stale record pins nobody": [
            "tests/unit/store/records/test_member_versions.py::test_trap_a_stale_record_pins_nobody"
        ],
        "a disk that is not mounted, or another directory in its place": [
            VOLUMES + "backend_identity.py::test_trap_a_disk_that_is_not_mounted_fails_the_backend_until_it_is",
            VOLUMES + "backend_identity.py::test_trap_a_directory_that_is_another_backend_is_refused_and_left_as_it_is",
            VOLUMES
            + "backend_operations.py::test_trap_while_a_backend_is_not_the_one_it_was_its_records_stay_as_they_are",
        ],
        "a backend that was renamed": [
            VOLUMES + "backend_operations.py::test_trap_volumes_of_a_backend_that_was_renamed_are_told_and_follow_it",
        ],
        "a full disk that something has to be deleted on": [
            VOLUMES + "full_disk.py::test_trap_volumes_and_snapshots_are_deleted_at_0_bytes_free",
            VOLUMES + "full_disk.py::test_trap_what_a_crash_left_is_cleared_from_the_disk_that_it_has_filled",
            VOLUMES + "backend_operations.py::test_trap_deleting_works_when_the_database_cannot_grow",
            "tests/unit/store/sqlite_files/test_reserved_space.py::test_trap_a_database_on_a_full_disk_can_write_what_gives_room_back",
        ],
        "room that is counted or promised twice": [
            VOLUMES + "backend_capacity.py::test_trap_clones_that_share_blocks_do_not_raise_the_limit",
            VOLUMES + "backend_capacity.py::test_trap_two_backends_on_one_file_system_do_not_promise_it_twice",
        ],
    },
    "Periodic": {
        "one that raises": [
            PERIODIC + "a_periodic_task_that_raises",
            SCHEDULER + "a_task_that_raises_harms_nobody_is_seen_and_is_logged_once",
        ],
        "one that raises `SystemExit`": [
            PERIODIC + "a_periodic_task_that_raises_system_exit",
            SCHEDULER + "a_task_that_raises_system_exit_harms_nobody_and_is_logged_once",
        ],
        "one slower than its spacing": [
            PERIODIC + "a_periodic_task_that_is_slower_than_its_spacing",
            SCHEDULER + "a_task_slower_than_its_spacing_never_runs_twice_at_once",
        ],
        "one that never ends": [
            PERIODIC + "a_periodic_task_that_never_ends",
            SCHEDULER + "a_task_that_never_ends_is_seen_and_its_neighbours_go_on",
        ],
        "10,000 of them": [
            SCHEDULER + "ten_thousand_tasks_all_run_on_time",
            SCHEDULER + "ten_thousand_tasks_of_one_moment_all_run_in_the_pool",
        ],
        "a spacing changed by reload": [
            PERIODIC + "a_spacing_changed_by_reload", SCHEDULER + "a_spacing_changed_by_reload",
        ],
        "one neighbour that blocks": [
            PERIODIC + "a_neighbour_that_blocks",
            SCHEDULER + "one_neighbour_that_blocks_does_not_hold_up_other_services",
        ],
    },
    "Machine": {
        "no descriptors left": [
            "tests/unit/messaging/unix/test_links.py::test_trap_no_descriptors_left_for_another_client",
        ],
        "no memory for a thread": [
            "tests/unit/aio/test_worker_pool.py::test_trap_no_memory_for_a_thread_refuses_the_job_and_keeps_nothing_of_it",
        ],
        "no space on the log": ["tests/unit/log/test_handlers.py::test_trap_no_space_on_the_log"],
        "a read-only runtime directory": [
            MACHINE + "a_read_only_runtime_directory",
            "tests/unit/messaging/unix/test_bind.py::test_trap_a_read_only_runtime_directory",
        ],
        "a socket left over from a dead daemon, and one of a living daemon": [
            MACHINE + "a_socket_left_over_from_a_dead_daemon",
            MACHINE + "a_socket_of_a_living_daemon",
            MACHINE + "the_state_of_a_living_daemon",
        ],
        "started in an empty environment": [MACHINE + "started_in_an_empty_environment"],
        "started without systemd": [MACHINE + "without_systemd"],
        "started as a user": [MACHINE + "started_as_a_user"],
    },
    "Processes": {
        "a signal for a forked child": [
            FORKS + "terminate_of_a_child_after_its_fork_is_not_taken_for_the_daemons",
        ],
        "a forked child that outlives the daemon": [FORKS + "a_child_that_outlives_a_killed_daemon_keeps_nothing"],
        "threads, executors and `atexit` of plugins that do not end": [
            FORKS + "what_a_plugin_leaves_behind_is_named_and_holds_up_nothing",
            FORKS + "a_command_that_loads_a_plugin_with_a_thread_ends",
            "tests/unit/daemon/process/test_process_exit.py::test_trap_a_thread_that_does_not_end_is_named_and_left",
            "tests/unit/daemon/process/test_process_exit.py::test_trap_atexit_that_does_not_come_back_is_named",
        ],
        "a client that is used after a fork": [
            "tests/functional/test_client_forks.py::test_trap_nobody_is_handed_the_answer_of_another_process",
            "tests/functional/test_client_forks.py::test_trap_request_ids_do_not_repeat_after_a_fork",
        ],
        "process 1 of a container": [
            CONTAINER + "orphans_are_reaped_and_no_exit_code_is_taken_from_who_waits_for_it",
            CONTAINER + "a_signal_before_there_are_handlers_ends_process_1",
        ],
    },
}  # fmt: skip


def page() -> str:
    """Return the table as a page."""
    lines = [
        "# Traps",
        "",
        "What daemons of this kind have stumbled over, and the tests that fail when Ostler does. Made from a table in",
        "`tests/docs/test_failure_modes.py`, which also sees to it that each of these tests is there.",
    ]
    for area, traps in FAILURE_MODES.items():
        lines += ["", f"## {area}", "", "| trap | tests |", "|---|---|"]
        lines += [f"| {trap} | {'<br>'.join(f'`{test}`' for test in tests)} |" for trap, tests in traps.items()]
    return "\n".join(lines) + "\n"


def names_in(path: Path) -> set[str]:
    """Return the names of the test functions of a file that are not skipped for ever."""
    return {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not any("mark.skip(" in (mark := ast.unparse(each)) or "mark.xfail" in mark for each in node.decorator_list)
    }


def named() -> Iterator[tuple[str, str]]:
    for area, traps in FAILURE_MODES.items():
        for trap, tests in traps.items():
            assert tests, f"{area}: {trap} has no test"
            for test in tests:
                yield f"{area}: {trap}", test


@pytest.mark.parametrize(("trap", "test"), list(named()))
def test_the_test_of_a_trap_is_there(trap: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert name.startswith("test_trap_"), trap
    assert name in names_in(ROOT / file), f"{trap}: {file} has no {name}"


def test_no_area_has_lost_a_trap() -> None:
    assert {area: len(traps) for area, traps in FAILURE_MODES.items()} == {
        "Life": 13,
        "Plugins": 16,
        "RPC": 15,
        "Events": 5,
        "State": 15,
        "Periodic": 7,
        "Machine": 8,
        "Processes": 5,
    }


def test_the_page_says_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "make it anew: python tests/docs/test_failure_modes.py > docs/failure-modes.md"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
