"""`[access.methods]` with the real daemon: what it opens and closes, also for connections that stand."""

from __future__ import annotations

import signal

import pytest
from daemon_process import NOBODY, DaemonProcess, as_nobody, cannot_become_nobody, wait_for

from ostler import Client, NotPermitted

ECHO = '[services.echo]\nmanager = "audited_managers:AuditedEchoManager"\n'


def test_a_reload_closes_and_opens_a_method_for_connections_that_stand(make_daemon) -> None:
    daemon: DaemonProcess = make_daemon(ECHO).start()
    with Client(root=daemon.root) as client:
        assert client.call("echo", "say", text="four") == "4"
        daemon.configure('[access.methods]\n"echo.say" = "nobody"\n', "conf.d/policy.toml")
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("restricts echo.say to nobody")
        with pytest.raises(NotPermitted, match=r"echo\.say is closed to everyone on this host"):
            client.call("echo", "say", text="four")
        assert "nobody" in daemon.command("describe", "echo").stdout
        daemon.configure("# nothing\n", "conf.d/policy.toml")
        daemon.command("reload")
        assert client.call("echo", "say", text="four") == "4"


def test_a_method_that_is_closed_still_serves_the_managers_of_the_daemon(make_daemon) -> None:
    config = """
        [services.vault]
        manager = "audited_managers:VaultManager"
        [services.vault.drivers.one]
        driver = "audited_managers:LoggingDriver"
        [access.methods]
        "echo.*" = "nobody"
    """
    daemon = make_daemon(ECHO + config).start()
    with Client(root=daemon.root) as client:
        assert client.call("vault", "pass_on", name="x", password="four") == "4"
        with pytest.raises(NotPermitted):
            client.call("echo", "say", text="x")


def test_admin_cannot_be_locked_out(make_daemon) -> None:
    daemon = make_daemon('[access.methods]\n"*.*" = "nobody"\n"ostler.reload" = "nobody"\n').start()
    daemon.configure("# nothing\n")
    daemon.command("reload")
    daemon.wait_log("leaves the topic ostler open to admin")


@pytest.mark.root
def test_a_method_is_opened_to_a_user_who_may_only_look_and_that_is_said(make_daemon) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    daemon = make_daemon()
    daemon.make_traversable()
    daemon.configure(f'{ECHO}[access]\nviewer = ["{NOBODY}"]\n')
    daemon.start()
    refused = daemon.command("call", "echo", "say", "text=four", check=4, before=as_nobody()).stderr
    assert "echo.say needs the role operator" in refused
    daemon.configure('[access.methods]\n"echo.say" = "viewer"\n', "conf.d/policy.toml")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("opens echo.say to the role viewer; its author requires operator")
    assert "4" in daemon.command("call", "echo", "say", "text=four", before=as_nobody()).stdout


def test_a_line_that_fits_nothing_is_said_by_check_and_at_the_start(make_daemon) -> None:
    daemon = make_daemon('[access.methods]\n"ostler.statu" = "admin"\n')
    said = "\"ostler.statu\", but no service here has such a method; did you mean 'ostler.status'?"
    assert said in daemon.command("check").stderr
    daemon.start()
    assert wait_for(lambda: said in daemon.log, "the warning")


def test_a_key_or_role_that_can_never_be_right_is_an_error(make_daemon) -> None:
    daemon = make_daemon('[access.methods]\n"echo" = "admin"\n"echo.say" = "boss"\n')
    said = daemon.command("check", check=78).stderr
    assert "ostler.toml:2" in said
    assert "ostler.toml:3" in said
    assert '"boss"' in said
