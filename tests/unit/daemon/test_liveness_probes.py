import asyncio
from types import SimpleNamespace

import pytest

from ostler.clock import FakeClock
from ostler.daemon.liveness_probes import probe_service, probe_store
from ostler.errors import ServiceError, StoreUnavailable

OPTIONS = SimpleNamespace(critical=True, report_interval=10.0, down_time=60.0)


class Store:
    def __init__(self, error=None) -> None:
        self.error = error

    async def aping(self):
        if self.error:
            raise self.error


@pytest.mark.parametrize("error", [None, StoreUnavailable("the disk is full")])
def test_a_writer_that_answers_lives_also_when_the_disk_is_full(error) -> None:
    # Passing is the assertion: what is stuck raises.
    asyncio.run(probe_store(Store(error)))


def service(**facts):
    return SimpleNamespace(
        **{"topic": "lamp", "options": OPTIONS, "is_running": True, "last_progress": 1000.0, **facts}
    )


def test_a_critical_service_has_one_report_and_its_down_time_to_make_progress() -> None:
    clock = FakeClock()
    clock.advance(70)
    asyncio.run(probe_service(service(), clock))
    clock.advance(1)
    with pytest.raises(ServiceError, match="have not returned for 1min 11s"):
        asyncio.run(probe_service(service(), clock))


@pytest.mark.parametrize(
    "facts", [{"is_running": False}, {"options": SimpleNamespace(critical=False)}], ids=["not at work", "not critical"]
)
def test_who_owes_no_evidence_is_not_asked(facts) -> None:
    clock = FakeClock()
    clock.advance(10_000)
    # Passing is the assertion: who owes evidence, and has given none for so long, raises.
    asyncio.run(probe_service(service(**facts), clock))
