import resource
import subprocess
import sys

from ostler.daemon.process.process_limits import connection_limits, resident_memory

RAISE = """
import resource
from ostler.daemon.process.process_limits import raise_descriptor_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
assert raise_descriptor_limit() == hard
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
assert raise_descriptor_limit() == hard
"""


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    # In a process of its own: the limit is the whole process's.
    # The assertion is in the program, whose exit code is checked.
    subprocess.run([sys.executable, "-c", RAISE], check=True, timeout=60)


SHORTEN = """
import sys
from ostler.daemon.process.process_limits import shorten_switch_interval
assert sys.getswitchinterval() > 0.002
shorten_switch_interval()
assert sys.getswitchinterval() <= 0.001
"""


def test_threads_that_compute_give_way_sooner() -> None:
    # The assertion is in the program, whose exit code is checked.
    subprocess.run([sys.executable, "-c", SHORTEN], check=True, timeout=60)


def test_the_memory_in_use_is_that_of_this_process() -> None:
    # The kernel counts both a little late.
    assert resource.getpagesize() < resident_memory() < 2 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_few_descriptors_mean_few_connections_and_some_are_left_for_the_daemon() -> None:
    assert connection_limits(1000, 524_288, network=True) == (1000, 1000)
    unix, network = connection_limits(1000, 64, network=True, peers=1)
    # Root has some more on both unix sockets; on the network there are some that have not said who they are.
    assert 38 + 2 * (unix + 4 + unix // 4) + 3 * network <= 64
    assert min(connection_limits(1000, 10, network=True)) >= 2, "an operator gets in whatever happens"
    assert connection_limits(5, 1024, network=False) == (5, 5)
