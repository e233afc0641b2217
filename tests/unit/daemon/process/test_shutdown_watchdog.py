import queue

from ostler.daemon.process.shutdown_watchdog import ShutdownWatchdog, force_exit


def test_a_stop_that_does_not_end_is_ended_with_what_hung(caplog) -> None:
    left: queue.Queue[int] = queue.Queue()
    resort = ShutdownWatchdog(lambda: ["init_host on lamp-"], left.put)
    resort.arm(0.01)
    assert left.get(timeout=5) == 1
    assert "still running at the end of the stop: init_host on lamp-" in caplog.text


def test_a_stop_that_ends_is_left_alone() -> None:
    left: queue.Queue[int] = queue.Queue()
    resort = ShutdownWatchdog(list, left.put)
    resort.disarm()
    resort.arm(0.01)
    resort.arm(0.0)
    assert left.empty()


def test_leaving_hard_gives_the_code_it_is_told() -> None:
    codes: list[int] = []
    force_exit([], 0, codes.append)
    assert codes == [0]
