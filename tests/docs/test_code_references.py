"""What docstrings and comments name in backticks is there: a rename that forgets them is found."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("daemon/ostler/**/*.py"), *ROOT.glob("plugins/*/ostler_*/**/*.py")])
FOREIGN = frozenset({
    "Lamp", "LampAdmin", "NAMESPACE_", "WatchdogSec", "__reduce__", "asyncio", "bak", "c", "dictConfig", "hmac",
    "mNNNN_name", "mNNNN_what", "multiprocessing", "openat2", "preexec_fn", "pty", "pydoc", "rc", "rpmsave",
    "sd_id128_get_machine_app_specific", "subprocess", "sun_path", "to_thread", "uninitialized", "x",
})  # fmt: skip
"""Names of systemd, the kernel, Python's library and of examples, which the sources name and do not use."""


_TEXT = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}  # from Python 3.12 on


def parts(path: Path) -> Iterator[tuple[bool, int, str]]:
    """Yield names, texts and comments of a source: whether it is prose, its line, the text."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in (tokenize.NAME, tokenize.COMMENT, *_TEXT):
            prose = token.type == tokenize.COMMENT or '"""' in token.string[:4]
            yield prose, token.start[0], token.string


@cache
def known() -> frozenset[str]:
    """Return all identifiers of the sources, their files, and the words of their strings."""
    names = {name for path in SOURCES for name in (path.stem, *path.parts)}
    for path in SOURCES:
        for prose, _, text in parts(path):
            if not prose:
                names.update(re.findall(r"\w+", text))
    return frozenset(names | FOREIGN)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_in_backticks_is_there(path: Path) -> None:
    gone = [
        f"{line}: {named}"
        for prose, line, text in parts(path)
        if prose
        for named in re.findall(r"`([A-Za-z_][\w.]*)`", text)
        if not set(named.split(".")) - {"py", "toml", ""} <= known()
    ]
    assert gone == []
