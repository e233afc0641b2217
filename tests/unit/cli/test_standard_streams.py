from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ostler.cli.standard_streams import EscapingStream, escape_standard_streams, unwrap

EVIL = "A\x1b]0;x\x07\x9b31m\x7f\u202eb\u2028\ud800"


def test_what_is_printed_around_the_kit_is_escaped_too() -> None:
    out = io.StringIO()
    print(f"a\tb\n{EVIL}", file=EscapingStream(out, json=False))
    assert out.getvalue() == "a\tb\nA\\x1b]0;x\\x07\\x9b31m\\x7f\\u202eb\\u2028\\ud800\n"


def test_json_stays_valid_whatever_the_stream_can_write() -> None:
    for encoding in ("utf-8", "ascii"):
        raw = io.BytesIO()
        behind_it = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
        print(json.dumps(["ü\x9b\u202e火🙂"], ensure_ascii=False), file=EscapingStream(behind_it, json=True))
        behind_it.flush()
        assert json.loads(raw.getvalue().decode(encoding)) == ["ü\x9b\u202e火🙂"]
        assert b"\x9b" not in raw.getvalue().decode(encoding).encode("latin-1", "ignore")


def test_nobody_takes_it_for_a_terminal_but_who_escapes_by_himself() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    stream: Any = EscapingStream(terminal, json=False)
    assert not stream.isatty()
    assert stream.encoding == "utf-8"
    assert unwrap(stream) is terminal
    assert unwrap(terminal) is terminal
    with pytest.raises(TypeError):
        stream.write(b"bytes")


def test_the_streams_are_as_they_were_afterwards() -> None:
    before = sys.stdout, sys.stderr
    with escape_standard_streams(json=False):
        assert sys.stdout is not before[0]
        with escape_standard_streams(json=True):
            assert unwrap(sys.stdout) is before[0]
    assert (sys.stdout, sys.stderr) == before


def run(code: str, redirect: str) -> subprocess.CompletedProcess[str]:
    script = f"import sys; from ostler.cli.command_line import run_command; {code}"
    shell = f'exec "$0" -c "$1" {redirect}'
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        ["sh", "-c", shell, sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=30,
    )


@pytest.mark.parametrize("redirect", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&-"])
def test_closed_streams_end_in_no_traceback(redirect: str) -> None:
    done = run("raise SystemExit(run_command(['--version'], {}))", redirect)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_numbers_of_closed_streams_go_to_no_other_file() -> None:
    code = "run_command(['--version'], {}); import os; f = open('/dev/zero'); os._exit(f.fileno())"
    assert run(code, "<&- >&- 2>&-").returncode > 2


def test_a_full_disk_is_said_in_a_line() -> None:
    done = run("raise SystemExit(run_command(['--version'], {}))", ">/dev/full")
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("ostler: ")
