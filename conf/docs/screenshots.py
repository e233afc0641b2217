"""Makes the pictures of the web page in docs/images: `.venv/bin/python conf/docs/screenshots.py`.

It starts a daemon of its own with volumes and a few problems, and needs chromium, playwright and Pillow, which makes
the pictures small. Look at what it has made before you commit it.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "functional")]

from daemon_process import DaemonProcess  # noqa: E402 - found by the line above
from PIL import Image  # noqa: E402 - the same
from playwright.sync_api import sync_playwright  # noqa: E402 - the same

CONFIG = """
[daemon]
host = "node1"

[events]
journal = ["ostler"]

[services.scheduler]
manager = "scheduler"

[services.volume]
manager = "volume"
[services.volume.drivers.fast]
driver = "file"
path = "{root}/fast"
[services.volume.drivers.large]
driver = "file"
path = "{root}/large"

[services.archive]
manager = "volume"
[services.archive.drivers.tape]
driver = "file"
path = "/proc/tape"

[services.web]
manager = "http"
[services.web.apps."/"]
app = "ui"
"""
PAGES = {
    "overview": "/", "services": "/services", "service": "/services/volume", "topics": "/topics",
    "topic": "/topics/volume", "operations": "/operations", "periodic": "/periodic",
    "periodic-task": "/periodic/volume/check", "events": "/events?pattern=volume", "log": "/log", "audit": "/audit",
    "configuration": "/configuration", "plan": "/configuration/plan", "plugins": "/plugins", "hosts": "/hosts",
    "dump": "/dump", "volumes": "/pages/volumes",
}  # fmt: skip
COLOURS = 48


def main() -> None:
    """Make all pictures."""
    daemon = DaemonProcess(CONFIG)
    try:
        prepare(daemon.start())
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            photograph(browser.new_context(viewport={"width": 1100, "height": 720}), daemon)
            browser.close()
    finally:
        daemon.close()


def prepare(daemon: DaemonProcess) -> None:
    """Have something to see."""
    for name, size in (("database", "8GiB"), ("logs", "2GiB"), ("scratch", "1GiB")):
        daemon.command("volume", "create", name, "--size", size)
    daemon.command("volume", "snapshot", "create", "database", "before-upgrade")
    daemon.command("volume", "extend", "logs", "3GiB")
    daemon.command("volume", "delete", "missing", check=None)
    daemon.command("service", "disable", "scheduler", "--reason", "new disks are being built in")
    daemon.configure('[daemon]\nstop_timeout = "30s"\n[services.volume]\nworkers = 12\n', "conf.d/changes.toml")


def photograph(context: Any, daemon: DaemonProcess) -> None:
    """Save a picture of each page, some of them as on a phone, in the dark, or with a question."""
    page = context.new_page()
    link = daemon.command("http", "login-link").stdout.strip()
    base = link.partition("/login#")[0]
    page.goto(f"{base}/login")
    save(page, "login")
    page.goto("about:blank")  # a change of the fragment alone would not load the page
    page.goto(link)
    page.wait_for_url(re.compile(r"/$"))
    for name, path in PAGES.items():
        page.goto(f"{base}{path}")
        if name in ("overview", "topics"):
            page.locator("html[data-updates='3']").wait_for(state="attached")
        elif name in ("events", "log"):
            page.get_by_text("Live", exact=True).wait_for()
        save(page, name)
    page.goto(f"{base}/pages/volumes")
    page.get_by_role("button", name="Delete… scratch").click()
    save(page, "question")
    page.emulate_media(color_scheme="dark")
    page.goto(f"{base}/")
    page.locator("html[data-updates='3']").wait_for(state="attached")
    save(page, "overview-dark")
    page.set_viewport_size({"width": 390, "height": 780})
    page.goto(f"{base}/pages/volumes")
    save(page, "volumes-phone")
    page.goto(f"{base}/services")
    save(page, "services-phone")


def save(page: Any, name: str) -> None:
    """Save a picture, with few colours and so small."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    target = ROOT / "docs" / "images" / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size // 1024} KiB")  # noqa: T201 - what a script says


if __name__ == "__main__":
    main()
