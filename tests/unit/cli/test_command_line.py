"""What the command does with what is typed, seen from outside: exit code, stdout, stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

import ostler as package
from ostler.cli.command_line import run_command
from ostler.errors import (
    ConfigurationError,
    Conflict,
    DaemonNotRunning,
    InvalidArguments,
    NotPermitted,
    OstlerError,
    Problem,
)

STATUS = ("ostler", "status")
COMMAND = [sys.executable, "-W", "error", "-m", "ostler"]


def lean(tmp_path: Any, **more: str) -> dict[str, str]:
    return {"OSTLER_ROOT": str(tmp_path), **more}


@pytest.mark.parametrize(
    ("error", "code", "err"),
    [
        (
            Conflict("volume a is in use", hint="detach it first"),
            1,
            "ostler: volume a is in use\nhint: detach it first\n",
        ),
        (InvalidArguments("size is no integer"), 2, "ostler: size is no integer\n"),
        (DaemonNotRunning("no daemon answers", hint="start it"), 3, "ostler: no daemon answers\nhint: start it\n"),
        (NotPermitted("uid 7 lacks the role admin"), 4, "ostler: uid 7 lacks the role admin\n"),
        (ConfigurationError("no daemon.host"), 78, "ostler: no daemon.host\n"),
    ],
)
def test_an_error_is_its_sentence_its_hint_and_its_exit_code(
    ostler: Any, client: Any, error: OstlerError, code: int, err: str
) -> None:
    client.answers[STATUS] = error
    assert ostler("status") == (code, "", err)


def test_every_problem_of_a_configuration_is_a_line_with_its_place(ostler: Any, client: Any) -> None:
    problems = [
        Problem("/etc/a.toml:3:1", "unknown key hots; did you mean host?"),
        Problem("/etc/b.toml:9:5", "no size"),
    ]
    client.answers["ostler", "reload"] = ConfigurationError(problems, hint="nothing was changed")
    assert ostler("reload") == (
        78,
        "",
        (
            "/etc/a.toml:3:1: unknown key hots; did you mean host?\n/etc/b.toml:9:5: no size\n"
            "ostler: 2 problems in the configuration\nhint: nothing was changed\n"
        ),
    )


def test_one_problem_with_its_place_is_a_line_of_its_own(ostler: Any, client: Any) -> None:
    client.answers["ostler", "reload"] = ConfigurationError([Problem("", "/etc/a.toml:3:1: no TOML")])
    assert ostler("reload").err == "  /etc/a.toml:3:1: no TOML\nostler: 1 problem in the configuration\n"


def test_an_error_of_the_system_names_the_file(ostler: Any, client: Any) -> None:
    client.answers[STATUS] = PermissionError(13, "Permission denied", "/srv/a")
    assert ostler("status") == (1, "", "ostler: /srv/a: Permission denied\n")


def test_with_json_an_error_is_an_object_on_stderr(ostler: Any, client: Any) -> None:
    client.answers[STATUS] = ConfigurationError([Problem("a.toml:1:2", "wrong")], hint="do", file="a.toml")
    code, out, err = ostler("--json", "status")
    assert (code, out) == (78, "")
    assert json.loads(err)["error"] == {
        "name": "ConfigurationError", "message": "a.toml:1:2: wrong", "hint": "do", "exit_code": 78,
        "details": {"file": "a.toml"}, "problems": [
            {"where": "a.toml:1:2", "what": "wrong", "file": "a.toml", "line": 1, "column": 2}
        ],
    }  # fmt: skip


def test_with_json_the_problems_of_a_reload_have_their_places(ostler: Any, client: Any) -> None:
    texts = ["/etc/a b.toml:1:2: wrong: a", "/etc/c.toml: cannot be read", "--set: x", "no place: at all"]
    client.answers["ostler", "reload"] = ConfigurationError([Problem("", text) for text in texts])
    problems = json.loads(ostler("--json", "reload").err)["error"]["problems"]
    assert [(problem["where"], problem["what"]) for problem in problems] == [
        ("/etc/a b.toml:1:2", "wrong: a"), ("/etc/c.toml", "cannot be read"), ("--set", "x"), ("", "no place: at all"),
    ]  # fmt: skip


def test_an_unexpected_error_is_one_line_and_says_how_to_see_more(ostler: Any, client: Any) -> None:
    client.answers[STATUS] = ZeroDivisionError("oh")
    assert ostler("status") == (
        1,
        "",
        "ostler: unexpected ZeroDivisionError: oh\nhint: run with OSTLER_TRACEBACK=1 for details\n",
    )
    ostler.environ["OSTLER_TRACEBACK"] = "1"
    assert "Traceback (most recent call last)" in ostler("status").err


def test_an_error_cannot_write_to_the_terminal(ostler: Any, client: Any) -> None:
    client.answers[STATUS] = Conflict("bad \x1b[2J name")
    assert ostler("status").err == "ostler: bad \\x1b[2J name\n"


def test_ctrl_c_ends_with_130(ostler: Any, client: Any) -> None:
    client.answers[STATUS] = KeyboardInterrupt()
    assert ostler("status") == (130, "", "")
    assert client.closed == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("statsu", "ostler: unknown command statsu; did you mean `ostler status`?\nhint: see `ostler --help`\n"),
        (
            "log_level",
            "ostler: unknown command log_level; did you mean `ostler log-level`?\nhint: see `ostler --help`\n",
        ),
        ("qqq", "ostler: unknown command qqq\nhint: see `ostler --help`\n"),
        ("status --bogus", "ostler: No such option: --bogus\nhint: see `ostler status --help`\n"),
        ("run --bogus", "ostler: No such option: --bogus\nhint: see `ostler run --help`\n"),
        ("--root", "ostler: Option '--root' requires an argument.\nhint: see `ostler --help`\n"),
        ("service show", "ostler: Missing argument 'TOPIC'.\nhint: see `ostler service show --help`\n"),
        ("call", "ostler: TOPIC and METHOD are missing\nhint: see `ostler call --help`\n"),
    ],
)
def test_a_mistake_in_typing_is_explained_with_exit_code_2(ostler: Any, typed: str, said: str) -> None:
    code, out, err = ostler(*typed.split())
    assert (code, out) == (2, "")
    assert err.casefold() == said.casefold()


def test_a_timeout_that_is_no_time_is_refused(ostler: Any) -> None:
    code, _, err = ostler("--timeout", "soon", "status")
    assert code == 2
    assert err.startswith('ostler: "soon" is not a valid time span\nhint: ')


def test_without_a_verb_the_help_is_shown_as_a_usage_error(ostler: Any) -> None:
    code, out, err = ostler()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ostler")
    code, out, err = ostler("service")
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ostler service")


def test_the_version_is_shown(ostler: Any) -> None:
    assert ostler("--version") == (0, f"ostler {package.__version__}\n", "")


def test_global_options_reach_the_client(ostler: Any, client: Any) -> None:
    client.answers["ostler", "service_list"] = []
    ostler("--root", "/a", "--timeout", "2min", "service", "list")
    ostler("service", "list", "--root=/b", "--json")
    ostler.environ["OSTLER_ROOT"] = "/c"
    ostler("service", "list")
    assert client.opened == [("/a", 120.0), ("/b", 60.0), ("/c", 60.0)]


@pytest.mark.failure_mode("Machine", "started in an empty environment")
def test_empty_environment(tmp_path: Any) -> None:
    code = subprocess.run([*COMMAND, "--help"], check=False, env={}, cwd=tmp_path, capture_output=True, timeout=30)
    assert (code.returncode, code.stderr) == (0, b"")


@pytest.mark.parametrize(
    "surroundings", [{"LANG": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}]
)
def test_a_name_that_stdout_cannot_show_ends_nothing(surroundings: dict[str, str]) -> None:
    script = (
        "import sys; from ostler.manager_types import LogLevel\n"
        "from ostler.cli import command_line, command_tree, kit\n"
        "class Client:\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *e): pass\n"
        "    def on(self, **k): return self\n"
        "    def call(self, *a, **k): return [LogLevel(logger='\\u706b\\u5c71', level='d\\u00e9bug')]\n"
        "sys.exit(command_line.run_command(['log-level'], {}, connect=lambda *a: Client()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, env=surroundings, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"LOGGER" in done.stdout


@pytest.mark.failure_mode("Machine", "output that is closed, full or not read")
def test_a_closed_pipe_ends_quietly(tmp_path: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [*COMMAND, "--help"], check=False, env=lean(tmp_path), stdout=closed, stderr=subprocess.PIPE, timeout=30
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_stdout_and_stderr_are_no_traceback(tmp_path: Any) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", *COMMAND, "statsu"], env=lean(tmp_path), timeout=30, check=False
    )
    assert done.returncode in (0, 2)


def test_ctrl_c_in_another_process_prints_nothing(tmp_path: Any) -> None:
    script = (
        "import sys, time; from ostler.cli import command_line\n"
        "class Client:\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *e): print('closed')\n"
        "    def on(self, **k): return self\n"
        "    def call(self, *a, **k): print('calling', flush=True); time.sleep(60)\n"
        "sys.exit(command_line.run_command(['status'], {}, connect=lambda *a: Client()))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], env=lean(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"calling\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"closed\n", b"")


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (
            ["status"],
            {
                "typer",
                "asyncio",
                "pydantic",
                "importlib.metadata",
                "rich",
                "ostler.daemon",
                "http",
                "ssl",
                "urllib.parse",
            },
        ),
        (["run"], {"typer", "rich", "click"}),
        (["--root", "/nowhere", "run", "--set", "a=1"], {"typer", "rich", "click"}),
        (["check"], {"typer", "rich", "click"}),
        (["check", "--set", "log.level=debug"], {"typer", "rich", "click"}),
        (["--help"], {"asyncio", "pydantic", "rich", "zmq", "ostler.cli.commands.status", "ostler.messaging"}),
    ],
)
def test_a_verb_imports_only_what_it_needs(words: list[str], forbidden: set[str]) -> None:
    script = (
        "import sys, types\n"
        "daemon = types.ModuleType('ostler.daemon'); daemon.run_daemon = lambda *a: 0\n"
        "if 'run' in sys.argv: sys.modules['ostler.daemon'] = daemon\n"
        "from ostler.cli import command_line\n"
        "def connect(*a):\n"
        "    from ostler.errors import DaemonNotRunning\n"
        "    raise DaemonNotRunning('not running')\n"
        "command_line.run_command(sys.argv[1:], {}, connect=connect)\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=30, check=True
    )
    assert forbidden & set(done.stderr.split()) == set()


def test_run_goes_to_the_daemon_with_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import ostler.daemon

    asked: list[Any] = []

    def run_daemon(paths: Any, overrides: list[str], log_level: str | None, *, is_safe: bool) -> int:
        asked.append((paths.root, overrides, log_level, is_safe))
        return 78

    # The command imports it late, and the daemon itself would be started.
    monkeypatch.setattr(ostler.daemon, "run_daemon", run_daemon, raising=False)
    words = ["--root", str(tmp_path), "run", "--set", "daemon.host=a", "--set=b=c", "--log-level=debug"]
    assert run_command(words, {}) == 78
    assert asked == [(tmp_path, ["daemon.host=a", "b=c"], "debug", False)]
