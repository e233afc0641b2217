"""Wheels made by hand: packages that pip installs without an index and without a build."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MANAGER = """
import ostler

class {cls}(ostler.Manager):
    version = "1.0"

    @ostler.exposed(role="viewer")
    def answer(self, ctx: ostler.Context) -> str:
        return "{version}"

@ostler.hookimpl
def ostler_managers():
    return {{"{topic}": {cls}}}
"""


def make_wheel(
    directory: Path,
    name: str,
    version: str = "1.0",
    *,
    modules: Mapping[str, str] | None = None,
    plugins: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    group: str = "ostler",
) -> Path:
    """Write a wheel and return it.

    Args:
        directory: Where; made if it is missing.
        name: The name of the distribution.
        version: Its version.
        modules: Its modules: name to text.
        plugins: Its entry points in `group`: name to target.
        requires: What it depends on.
        group: The group of its entry points.
    """
    escaped = name.replace("-", "_")
    info = f"{escaped}-{version}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {each}" for each in requires),
    ]
    files = {f"{module}.py": text for module, text in (modules or {}).items()}
    files[f"{info}/METADATA"] = "\n".join(metadata) + "\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if plugins:
        points = "\n".join(f"{each} = {target}" for each, target in plugins.items())
        files[f"{info}/entry_points.txt"] = f"[{group}]\n{points}\n"
    lines = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    wheel = directory / f"{escaped}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return wheel


def make_plugin(
    directory: Path, topic: str, version: str = "1.0", *, more: str = "", requires: Sequence[str] = ()
) -> Path:
    """Write the wheel `ostler-TOPIC` of a plugin with one manager, whose `answer` is its version; return the wheel."""
    module = f"ostler_{topic}"
    text = MANAGER.format(cls=topic.capitalize(), topic=topic, version=version) + more
    return make_wheel(
        directory, f"ostler-{topic}", version, modules={module: text}, plugins={topic: module}, requires=requires
    )


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
