"""The page on HTTP is typed word by word."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from executable_pages import Terminal, type_page  # noqa: E402


@pytest.mark.timeout(120)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page makes a certificate with openssl")
def test_http_services_word_by_word(terminal: Terminal) -> None:
    assert type_page(ROOT / "docs" / "http.md", terminal, word="run") > 10
