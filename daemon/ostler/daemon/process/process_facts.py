"""What the kernel and the interpreter know of this process. Reads `/proc`: not on the loop, any other thread."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import re
import resource
import sqlite3
import sys
import threading
from collections import Counter
from typing import Any

import ostler
from ostler.redaction import redact

_MAX_DESCRIPTORS = 2000
"""Descriptors that are looked at; further ones are only counted."""
_MAX_NAMED_FILES = 100
_requirement_name = re.compile(r"[A-Za-z0-9._-]+").match
_is_for_development = re.compile(r"extra *== *['\"](dev|docs|test)").search


def process_facts() -> dict[str, Any]:
    """Return who the process is, and how much time and memory it has used; bytes and seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "command": redact(" ".join(sys.argv)),
        "executable": sys.executable,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "cpu": {"user": usage.ru_utime, "system": usage.ru_stime, "cores": os.cpu_count() or 0},
        "switches": {"voluntary": usage.ru_nvcsw, "involuntary": usage.ru_nivcsw},
        "memory": {
            **_status_bytes("VmRSS", "VmHWM", "VmSize", "VmSwap"),
            "objects in generations": gc.get_count(),
            "blocks": sys.getallocatedblocks(),
        },
        "threads": threading.active_count(),
        "descriptors": descriptors(),
    }


def descriptors() -> dict[str, Any]:
    """Return how many descriptors are open, of which kinds, and the files among them."""
    kinds: Counter[str] = Counter()
    files: list[str] = []
    try:
        numbers = os.listdir("/proc/self/fd")  # noqa: PTH208 - thousands, and only their names
    except OSError:  # no /proc is mounted, or no descriptor is left to read it with
        return {"limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}
    for number in numbers[:_MAX_DESCRIPTORS]:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - as above
        except OSError:  # closed meanwhile
            continue
        if target.startswith("/"):
            kinds["file"] += 1
            if len(files) < _MAX_NAMED_FILES:
                files.append(target)
        else:
            kinds[target.partition(":[")[0]] += 1
    return {
        "open": len(numbers),
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "kinds": dict(kinds.most_common()),
        "files": sorted(files),
    }


def versions() -> dict[str, Any]:
    """Return the versions of Ostler, of what it needs, and of what it runs on."""
    return {
        "ostler": ostler.__version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "packages": _package_versions(),
    }


def _package_versions() -> dict[str, str]:
    try:
        requirements = importlib.metadata.requires("ostler") or []
    except importlib.metadata.PackageNotFoundError:  # run from a tree that is not installed
        return {}
    used = [line for line in requirements if not _is_for_development(line)]
    names = {found[0] for line in used if (found := _requirement_name(line)) is not None}
    installed = {}
    for name in sorted(names):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed
            continue
    return installed


def _status_bytes(*names: str) -> dict[str, int]:
    """Return lines of `/proc/self/status` that are a number of kB, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - one small file
            lines = dict(line.split(":", 1) for line in status)
    except OSError:
        return {}
    return {name: int(lines[name].split()[0]) * 1024 for name in names if name in lines}
