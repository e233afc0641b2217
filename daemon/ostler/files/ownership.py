"""Whose files are whose: what a command may believe that lies in a directory of somebody else."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ostler.errors import Problem, UntrustedOwner

OPTION = "--trust-owner"
VARIABLE = "OSTLER_TRUST_OWNER"


class Trust(msgspec.Struct, frozen=True):
    """Who is believed: root and whoever runs this, and their groups; with `all`, everybody."""

    uid: int
    gid: int
    all: bool = False

    @classmethod
    def of_process(cls, *, all: bool = False) -> Trust:  # noqa: A002 - it is what it says
        """Return whom this process believes."""
        return cls(os.geteuid(), os.getegid(), all)


def distrusted(status: os.stat_result, trust: Trust, *, shared: bool = False) -> str:
    """Return why a file or directory is not to be believed, as the rest of a sentence; empty when it is.

    Args:
        status: What is known of it, best from a descriptor.
        trust: Who is believed.
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
        return "can be written by everybody"
    if status.st_mode & 0o020 and status.st_gid not in (0, trust.gid):
        return f"can be written by the group {_group_name(status.st_gid)}"
    return ""


def check_trusted(paths: Iterable[Path], trust: Trust, *, shared: bool = False) -> None:
    """Refuse files and directories that are not to be believed; what is not there is passed by. Any thread.

    Args:
        paths: What to look at; symbolic links are followed.
        trust: Who is believed.
        shared: See `distrusted`.

    Raises:
        UntrustedOwner: One of them belongs to somebody else, or can be written by them.
    """
    problems = []
    for path in paths:
        try:
            why = distrusted(path.stat(), trust, shared=shared)
        except OSError:
            continue  # whoever uses it says what is wrong
        if why:
            problems.append(Problem(str(path), why))
    if problems:
        raise refusal(problems)


def refusal(problems: list[Problem]) -> UntrustedOwner:
    """Return the error for what is not to be believed."""
    return UntrustedOwner(
        problems,
        hint="whoever can write these files could have you run what they like; run this as their owner, change owner "
        f"or mode, or go on with `{OPTION}` (or {VARIABLE}=1)",
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
