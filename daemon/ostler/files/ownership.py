"""Checks who owns files: which ones a command may trust in a directory of another user."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ostler.errors import Problem, UntrustedOwner

TRUST_OPTION = "--trust-owner"
TRUST_VARIABLE = "OSTLER_TRUST_OWNER"


class Trust(msgspec.Struct, frozen=True):
    """Who is trusted: root and the user that runs this, and their groups; with `all`, everybody."""

    uid: int
    gid: int
    all: bool = False

    @classmethod
    def of_process(cls, *, all: bool = False) -> Trust:  # noqa: A002 - it is what it says
        """Return whom this process trusts."""
        return cls(os.geteuid(), os.getegid(), all)


def distrust_reason(status: os.stat_result, trust: Trust, *, shared: bool = False) -> str:
    """Return why a file or directory is not trusted, as the rest of a sentence; empty when it is.

    Args:
        status: What is known of it, best from a descriptor.
        trust: Who is trusted.
        shared: Whether a directory will do in which everybody has but their own files (as /tmp).
    """
    if trust.all:
        return ""
    if status.st_uid not in (0, trust.uid):
        mine = "" if trust.uid == 0 else f" nor to {user_name(trust.uid)}"
        return f"belongs to {user_name(status.st_uid)}, {'neither' if mine else 'not'} to root{mine}"
    if shared and stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return ""
    if status.st_mode & 0o002:
        return "is writable by everyone"
    if status.st_mode & 0o020 and status.st_gid not in (0, trust.gid):
        return f"is writable by the group {_group_name(status.st_gid)}"
    return ""


def check_trusted(paths: Iterable[Path], trust: Trust, *, shared: bool = False) -> None:
    """Refuse files and directories that are not trusted; missing ones are skipped. Any thread.

    Args:
        paths: What to look at; symbolic links are followed.
        trust: Who is trusted.
        shared: See `distrust_reason`.

    Raises:
        UntrustedOwner: One of them belongs to another user, or is writable by one.
    """
    problems = []
    for path in paths:
        try:
            why = distrust_reason(path.stat(), trust, shared=shared)
        except OSError:
            continue  # the code that uses it reports the error
        if why:
            problems.append(Problem(str(path), why))
    if problems:
        raise untrusted_owner_error(problems)


def untrusted_owner_error(problems: list[Problem]) -> UntrustedOwner:
    """Return the error for files that are not trusted."""
    return UntrustedOwner(
        problems,
        hint="whoever can write these files can make you run any code; run this as their owner, change owner "
        f"or mode, or continue with `{TRUST_OPTION}` (or {TRUST_VARIABLE}=1)",
    )


def user_name(uid: int) -> str:
    """Return a user as it is shown: `name (uid 1000)`, or `uid 1000` when it has no name."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _group_name(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"gid {gid}"
