import pytest

from ostler import ServiceState, ServiceStatus
from ostler_scheduler.service_views import ServiceViews


def row(**facts):
    return ServiceStatus(**{"topic": "volume", "host": "node1", "state": ServiceState.UP, **facts})


@pytest.fixture
def judged(candidate):
    def judge(*rows, age=1.0, stale_after=0.0, gone=""):
        views = ServiceViews()
        views.replace(rows)
        return views.mark_unavailable(replace(candidate(gone=gone), age=age), stale_after)

    return judge


def replace(candidate, **facts):
    from msgspec.structs import replace

    return replace(candidate, **facts)


def test_nothing_is_judged_while_nothing_is_known_of_services(candidate):
    assert ServiceViews().mark_unavailable(candidate(), 0.0) == candidate()


def test_what_the_daemon_sees_decides(judged):
    assert judged(row()).gone == ""
    assert judged(row(state=ServiceState.DRAINING)).gone == "volume on node1 is draining"
    assert judged(row(link="node1 has been unreachable for 7s: no cable")).gone.startswith("node1 has been unreachable")
    off = judged(row(enabled=False, disabled_by="alice", disabled_reason="a disk"))
    assert (off.gone, off.enabled) == ("volume on node1 is disabled by alice: a disk", False)


def test_a_host_that_reports_here_and_cannot_be_reached_from_here_is_not_chosen(judged):
    assert "node1 is unreachable from this host" in judged(row(host="node2")).gone


def test_a_report_counts_for_three_intervals_of_its_own_service_and_for_no_less(judged):
    assert judged(row(capability_interval=20.0), age=59).gone == ""
    assert judged(row(capability_interval=20.0), age=61).gone == "its last report is 1min 1s old, the limit is 1min"
    assert judged(row(capability_interval=20.0), age=59, stale_after=6).gone == "", "it is well, whatever we want"
    assert judged(row(capability_interval=20.0), age=99, stale_after=100).gone == ""
    assert judged(row(), age=179).gone == "", "where the interval is not known, that of most"
