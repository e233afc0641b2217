"""The verdict of a reload: what became of it, in one line and in detail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ostler.bounds import truncate
from ostler.config.configuration_diff import RESTART_LEVEL
from ostler.errors import join_words
from ostler.reload_types import OptionChange

_VALUE_LIMIT = 80


def shown(value: Any) -> str:
    """Return a value of a configuration for a line of text, as in the file; secrets are masked already."""
    return truncate(json.dumps(value, ensure_ascii=False, default=str), _VALUE_LIMIT)


def applied_summary(
    changes: Sequence[OptionChange],
    waiting: Sequence[OptionChange],
    problems: Sequence[str],
    gone: Sequence[str],
    pending: Sequence[str],
) -> str:
    """Return the verdict of a reload that was carried out.

    Args:
        changes: What has changed since the last reload.
        waiting: What needs a new process.
        problems: What went wrong.
        gone: Files that were read before, and are not there any more.
        pending: Drivers that apply their options later, a line each.
    """
    effective = [change.path for change in changes if change.needs != RESTART_LEVEL]
    parts = [f"changed {join_words(effective)}" if effective else "nothing to change live"]
    if waiting:
        texts = (
            f"{change.path} ({change.old_text or shown(change.old)} -> {change.new_text or shown(change.new)})"
            for change in waiting
        )
        parts.append(f"needs a restart for {join_words(texts)}")
    if gone:
        parts.append(f"files removed: {join_words(gone)}")
    if pending:
        what = "drivers apply" if len(pending) > 1 else "driver applies"
        parts.append(f"{len(pending)} {what} new options after the work in progress")
    if problems:
        parts.append(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
    return f"reloaded{' with problems' if problems else ''}: {'; '.join(parts)}"


def undone_summary(failure: str, not_undone: Sequence[str]) -> str:
    """Return the verdict of a reload that was undone.

    Args:
        failure: The step that failed, and why.
        not_undone: What could not be undone, a line each.
    """
    if not_undone:
        count = len(not_undone)
        return f"reload failed, {count} step{'s' if count > 1 else ''} could not be undone: {failure}"
    return f"reload failed and undone, everything runs as before: {failure}"
