"""Requests that schemathesis makes of the OpenAPI document, valid and not, to the real daemon: no failure of a server.

`make fuzz-api` makes more of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_process import DaemonProcess

CONFIG = """
[services.volume]
manager = "volume"
scheduler = ""

[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"

[services.web]
manager = "http"
listen = ["127.0.0.1:0"]

[services.web.apps."/v1"]
app = "api"
"""
LEFT_OUT = (
    # They do not end, or end what the others need, or take long by their nature.
    "/events|/watch|/(log_follow|watch_host|operation.watch|relay|relay_stream|hello|host_report|wait_ready|console)$"
    "|/service_|/driver.abandon|/driver.restart|/db_|/reload|/token|/log_level$"
)
EXAMPLES = os.environ.get("OSTLER_FUZZ_API_EXAMPLES", "")


@pytest.mark.timeout(1800 if EXAMPLES else 180)
def test_no_request_makes_the_server_fail(tmp_path):
    daemon = DaemonProcess(CONFIG)
    (daemon.root / "volumes").mkdir()
    try:
        daemon.start()
        token = daemon.command("token", "new", "fuzz", "--role", "admin").stdout.strip()
        address = daemon.command("http", "address").stdout.split()[-1]
        done = _run(address, token, tmp_path)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
        assert "Traceback" not in daemon.log
        assert daemon.stop() == 0
    finally:
        daemon.close()


def _run(address, token, folder):
    here = Path(__file__).parent
    if EXAMPLES:
        more = ["--phases", "coverage,fuzzing", "--max-examples", EXAMPLES, "--generation-database", "none"]
    else:
        more = ["--phases", "fuzzing", "--max-examples", "2", "--generation-deterministic"]
    words = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{address}/v1/openapi.json",
        "--header", f"Authorization: Bearer {token}", "--exclude-path-regex", LEFT_OUT, "--no-color", "--no-shrink",
        "--checks", "no_failure_of_the_server,content_type_conformance,response_schema_conformance",
        "--workers", "2", *more,
    ]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(here), "SCHEMATHESIS_HOOKS": "schemathesis_hooks"}
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False)
