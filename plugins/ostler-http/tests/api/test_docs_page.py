"""The page of the documentation in a real browser."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
import urllib.error
import urllib.request

import pytest
from daemon_process import DaemonProcess

CONFIG = """
[services.web]
manager = "http"
listen = ["127.0.0.1:0"]

[services.web.apps."/v1"]
app = "api"
"""
BROWSER = shutil.which("chromium") or ""


class TokenProxy(http.server.ThreadingHTTPServer):
    """Passes requests on with a token: a browser that is only started with an address cannot send one."""

    def __init__(self, address, token):
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.address, self.token = address, token


class TokenHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        headers = {"Authorization": f"Bearer {self.server.token}"} if self.server.token else {}
        try:
            reply = urllib.request.urlopen(urllib.request.Request(self.server.address + self.path, headers=headers))
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            body = reply.read()
            self.send_response(reply.status)
            for name in ("Content-Type", "Content-Security-Policy"):
                if name in reply.headers:
                    self.send_header(name, reply.headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        """Say nothing."""


def shown_page(address, token, folder):
    with TokenProxy(address, token) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        words = [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
            f"--user-data-dir={folder}", "--virtual-time-budget=8000", f"http://127.0.0.1:{proxy.server_port}/v1/docs",
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=50)
        proxy.shutdown()
    assert "Content Security Policy" not in done.stderr
    return done.stdout


@pytest.mark.timeout(150)
@pytest.mark.skipif(not BROWSER, reason="needs chromium")
def test_the_page_shows_every_path_to_who_has_a_token_and_nothing_to_others(tmp_path):
    daemon = DaemonProcess(CONFIG)
    try:
        daemon.start()
        token = daemon.command("token", "new", "reader", "--role", "viewer").stdout.strip()
        address = daemon.command("http", "address").stdout.split()[-1]
        page = shown_page(address, token, tmp_path / "one")
        assert page.count("<details") > 60
        assert "/topics/ostler/methods/status" in page
        page = shown_page(address, "", tmp_path / "two")
        assert "nobody is known by this request" in page
        assert "<details" not in page
    finally:
        daemon.close()
