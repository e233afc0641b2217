"""A client in another language, generated from the OpenAPI document, talks to the real daemon.

It needs npm and its registry, and is no part of the whole of the tests: `make test-openapi-client` runs it by its path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from daemon_process import DaemonProcess

HERE = Path(__file__).parent / "typescript"
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


def run(folder, *words, **environ):
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(400)
def test_a_generated_typescript_client_calls_submits_and_reads_problems(tmp_path):
    for name in ("package.json", "tsconfig.json", "client.ts"):
        shutil.copy(HERE / name, tmp_path)
    run(tmp_path, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")
    daemon = DaemonProcess(CONFIG)
    (daemon.root / "volumes").mkdir()
    try:
        daemon.start()
        token = daemon.command("token", "new", "ts", "--role", "admin").stdout.strip()
        base = daemon.command("http", "address").stdout.split()[-1] + "/v1"
        # The document goes by a file: a generator is not to know the token.
        reply = run(tmp_path, "curl", "-sf", "-H", f"Authorization: Bearer {token}", f"{base}/openapi.json")
        (tmp_path / "openapi.json").write_text(reply, encoding="utf-8")
        run(tmp_path, "node_modules/.bin/openapi-typescript", "openapi.json", "--output", "schema.ts")
        run(tmp_path, "node_modules/.bin/tsc")
        found = json.loads(run(tmp_path, "node", "client.js", BASE_URL=base, TOKEN=token))
    finally:
        daemon.close()
    assert found.pop("since").endswith("Z")
    assert found == {
        "role": "admin",
        "size": 1048576,
        "problem": {"status": 409, "error": "ostler_volume.AlreadyExists"},
        "names": ["typed"],
        "submitted": 200,
        "state": "succeeded",
    }
