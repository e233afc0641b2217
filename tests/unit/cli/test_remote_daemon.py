"""A daemon that is meant by its address."""

import pytest

from ostler.cli.remote_daemon import RemoteDaemon, find_remote_daemon
from ostler.errors import DaemonNotRunning, InvalidInput

KEY = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"


def test_a_daemon_is_found_by_options_and_by_the_environment(tmp_path):
    secret, public = tmp_path / "my.key", tmp_path / "their.key"
    public.write_text(f"{KEY}\n")
    wanted = RemoteDaemon("tcp://node2:7890", KEY, secret)
    typed = {"--address": "tcp://node2:7890", "--server-key": KEY, "--secret-key": str(secret)}
    environ = {"OSTLER_ADDRESS": "tcp://node2:7890", "OSTLER_SERVER_KEY": KEY, "OSTLER_SECRET_KEY": str(secret)}
    assert find_remote_daemon(typed, {}, has_root=False) == wanted
    assert find_remote_daemon({}, environ, has_root=False) == wanted
    assert find_remote_daemon({**typed, "--server-key": str(public)}, {}, has_root=False) == wanted
    assert find_remote_daemon({}, environ, has_root=True) is None, "what was typed counts more"
    assert find_remote_daemon({}, {}, has_root=False) is None
    assert find_remote_daemon({"--address": "ipc:///run/ostler/rpc.sock"}, {}, has_root=False) == RemoteDaemon(
        "ipc:///run/ostler/rpc.sock"
    )


def test_what_keys_show_prints_is_good_as_the_file_of_a_public_key(ostler, tmp_path):
    secret, public = tmp_path / "my.key", tmp_path / "my.pub"
    ostler("keys", "new", str(secret))
    public.write_text(ostler("keys", "show", str(secret)).out)
    typed = {"--address": "tcp://node2:7890", "--server-key": str(public), "--secret-key": str(secret)}
    assert find_remote_daemon(typed, {}, has_root=False).server_key == public.read_text()[:40]


def test_a_public_key_that_begins_with_a_slash_is_no_file(tmp_path):
    key = "/" + KEY[1:]
    typed = {"--address": "tcp://node2:7890", "--server-key": key, "--secret-key": str(tmp_path / "my.key")}
    assert find_remote_daemon(typed, {}, has_root=False).server_key == key


@pytest.mark.parametrize(
    ("typed", "rooted", "says"),
    [
        ({"--server-key": KEY}, False, "--server-key needs `--address`"),
        ({"--address": "tcp://a:1"}, True, "--root and --address"),
        ({"--address": "tcp://a:1"}, False, "needs keys"),
        ({"--address": "tcp://a:1", "--server-key": "/nowhere", "--secret-key": "/x"}, False, "file /nowhere"),
    ],
)
def test_what_contradicts_itself_is_refused(typed, rooted, says):
    with pytest.raises(InvalidInput, match=says):
        find_remote_daemon(typed, {}, has_root=rooted)


def test_a_secret_key_on_the_command_line_is_refused_and_not_said_again():
    canary = "canary" + KEY[6:]
    with pytest.raises(InvalidInput, match="path of its file") as caught:
        find_remote_daemon({"--address": "tcp://a:1", "--server-key": KEY, "--secret-key": canary}, {}, has_root=False)
    assert "canary" not in str(caught.value)


def test_the_command_talks_to_the_address_and_needs_no_files(ostler, client, tmp_path):
    client.answers["ostler", "log_levels"] = []
    secret = tmp_path / "my.key"
    words = ("--address", "tcp://node2:7890", "--server-key", KEY, f"--secret-key={secret}")
    assert ostler(*words, "log-level").code == 0
    assert client.opened[-1][0] == RemoteDaemon("tcp://node2:7890", KEY, secret)
    refused = ostler(*words, "check")
    assert refused.code == 2
    assert "needs the files of the daemon" in refused.err
    ostler.environ = {"OSTLER_ADDRESS": "tcp://node2:7890"}
    assert "needs keys" in ostler("log-level").err
    assert ostler("--root", str(tmp_path), "log-level").code == 0
    assert client.opened[-1][0] == str(tmp_path)


def test_a_daemon_elsewhere_that_is_away_is_not_to_be_started_here(ostler, client, tmp_path):
    client.answers["ostler", "log_levels"] = DaemonNotRunning(
        "node2 cannot be reached", hint="see `ostler status` there"
    )
    assert "see `ostler status` there" in ostler("--root", str(tmp_path), "log-level").err
    client.answers["ostler", "log_levels"] = DaemonNotRunning("nobody listens", hint="start it with `ostler run`")
    assert f"start it with `ostler --root {tmp_path} run`" in ostler("--root", str(tmp_path), "log-level").err
