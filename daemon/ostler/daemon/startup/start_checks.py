"""What a start needs of this host beyond a valid configuration: checked by `ostler check`, and by each start first."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ostler.errors import OstlerError, Problem, StartRefused, join_words
from ostler.files import Trust, distrust_reason
from ostler.files.ownership import untrusted_owner_error
from ostler.store.sqlite_files.sqlite_connection import is_read_only
from ostler.store.start_check import check_database

if TYPE_CHECKING:
    from ostler.config.paths import Paths
    from ostler.service.resolve import ResolvedConfiguration


def check_start(paths: Paths, resolved: ResolvedConfiguration, *, read_content: bool = True) -> list[str]:
    """Check the directories and the database of a daemon as a start by this user would find them. Blocks; any thread.

    Nothing is created, changed or locked, and a running daemon is not disturbed.

    Args:
        paths: The places of the daemon.
        resolved: Its configuration.
        read_content: Whether the pages of the database are checked; see `check_database`.

    Returns:
        Warnings: what does not keep the daemon from starting.

    Raises:
        UntrustedOwner: A directory belongs to another user, or can be written by one.
        StartRefused: With all other reasons why a daemon would not start.
    """
    if untrusted := list(_untrusted(paths)):
        raise untrusted_owner_error(untrusted)
    problems = [*_directory_problems(paths.state_dir, "state"), *_directory_problems(paths.runtime_dir, "runtime")]
    warnings: list[str] = []
    if not any(problem.where == str(paths.state_dir) for problem in problems):
        for problem, is_fatal in _database_problems(paths.database, resolved, read_content):
            if is_fatal:
                problems.append(problem)
            else:
                warnings.append(str(problem))
    if problems:
        raise StartRefused(problems)
    return warnings


def _untrusted(paths: Paths) -> Iterator[Problem]:
    """Yield the directories that a start would not use for their owner or mode; it restricts the mode of its own."""
    trust = Trust.of_process(all=paths.trust_owner)
    for directory in (paths.state_dir, paths.runtime_dir):
        try:
            status = directory.stat()
        except OSError:
            continue  # missing, or reported by the next check
        is_restricted = status.st_uid == trust.uid and not status.st_mode & stat.S_ISVTX  # see `secure_directories`
        if is_restricted or not stat.S_ISDIR(status.st_mode):
            continue
        if why := distrust_reason(status, trust):
            yield Problem(str(directory), why)


def _directory_problems(directory: Path, what: str) -> Iterator[Problem]:
    """Yield why this user could not use a directory, or create it."""
    advice = "create it for the daemon's user, or choose another one with `--root`"
    for each in (directory, *directory.parents):
        try:
            status = each.stat()
        except FileNotFoundError:
            if each.is_symlink():
                yield Problem(str(directory), f"{each} is a dangling symbolic link; remove it, or create its target")
                return
            continue  # created at the start, below the next one
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", "") or "a loop of symbolic links"
            yield Problem(str(directory), f"the {what} directory cannot be used: {each}: {why}; {advice}")
            return
        if not stat.S_ISDIR(status.st_mode):
            why = f"{each} is not a directory; move it away, or choose another root with `--root`"
            yield Problem(str(directory), f"the {what} directory cannot be used: {why}")
        elif not os.access(each, os.W_OK | os.X_OK, effective_ids=True):
            if what == "state" and is_read_only(each):
                return  # the daemon starts without its database, and waits for the disk
            why = "its file system is read-only" if is_read_only(each) else "no permission to write to it"
            if each == directory:
                advice = "make the directory writable for the daemon's user, or choose another one with `--root`"
            yield Problem(str(directory), f"the {what} directory cannot be used: {each}: {why}; {advice}")
        return


def _database_problems(
    database: Path, resolved: ResolvedConfiguration, read_content: bool
) -> Iterator[tuple[Problem, bool]]:
    """Yield problems of the database, each with whether a start fails for it."""
    found = check_database(database, resolved.plugins.migrations(), read_content=read_content)
    if found.fault is not None:
        yield Problem("", _sentence(found.fault)), True
    for namespace, error in found.namespaces.items():
        users = [spec for spec in resolved.specs if namespace in spec.namespaces]
        required = [spec.topic for spec in users if spec.options.required]
        topics = join_words(required or [spec.topic for spec in users])
        which = ("required service " if required else "service ") + topics if topics else "no configured service"
        what = f"the tables of {namespace} cannot be used ({which} needs them): {_sentence(error)}"
        yield Problem("", what), bool(required)


def _sentence(error: OstlerError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
