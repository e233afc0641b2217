import io
from contextlib import redirect_stdout
from pathlib import Path

from ostler.config.paths import Paths
from ostler.daemon.banner import banner, print_banner

PATHS = Paths.find("/srv/here", {})
FACTS = ("node1", ["volume"], "volume up")


def test_it_says_where_the_daemon_listens_and_what_to_type_next() -> None:
    text = banner(PATHS, *FACTS, "ostler")
    assert "ipc:///srv/here/run/rpc.sock" in text
    assert "ostler --root /srv/here status" in text
    assert "ostler --root /srv/here describe volume" in text
    assert text.count("\n") < 24


def test_without_a_root_none_is_named() -> None:
    paths = Paths(
        root=None, config_file=Path("/etc/o.toml"), config_layers=(), state_dir=Path("/s"), runtime_dir=Path("/r")
    )
    assert "--root" not in banner(paths, *FACTS, "ostler")


def test_an_output_that_is_closed_is_nobodys_trouble() -> None:
    closed = io.StringIO()
    closed.close()
    # Passing is the assertion: it does not raise.
    with redirect_stdout(closed):
        print_banner(PATHS, *FACTS)
