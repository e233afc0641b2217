"""What the plugin promises to its callers."""

from pathlib import Path

from ostler.testing import check_rpc_api
from ostler_scheduler.manager import SchedulerManager


def test_the_version_says_what_changed_since_the_last_release():
    # It asserts by itself: an AssertionError names each change.
    check_rpc_api(SchedulerManager, Path(__file__).parent / "api")
