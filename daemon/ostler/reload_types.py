"""What a reload plans and comes to, as it is sent to the command; no behaviour here."""

from __future__ import annotations

from typing import Any

import msgspec

from ostler.wall_time import WallTime


class OptionChange(msgspec.Struct, frozen=True, kw_only=True):
    """One option that differs between two configurations, and what the change needs; secrets stand as `***`.

    `needs` is `live` (nothing), `driver` (the driver is initialised again), `service` (the service is restarted) or
    `daemon` (a new process). A table that only one of the two has is one change: its service or driver is added or
    removed. `old_text` and `new_text` are how a size or time span is written (`500MB`), empty for any other value.
    """

    path: str
    old: Any
    new: Any
    needs: str
    old_text: str = ""
    new_text: str = ""


class ReloadStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a reload, in the order in which they are carried out.

    `subject` is a service, a backend as `SERVICE/NAME`, or `daemon`; `options` are the paths of the changes that the
    step applies. `outcome` is empty in a plan, then `done`, `failed`, `undone` or `not undone`, and `not begun`
    for the steps after one that failed.
    """

    action: str
    subject: str
    options: list[str] = []
    outcome: str = ""
    why: str = ""


class ReloadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload would do now: the changes with their old and new values, and the steps that apply them.

    `needs_restart` are the changes that a new process would apply, including those of earlier reloads.
    """

    changes: list[OptionChange] = []
    steps: list[ReloadStep] = []
    needs_restart: list[OptionChange] = []
    warnings: list[str] = []


class ReloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload came to: applied, undone or refused, each change and step, and every problem.

    `changes` are in effect, but for those in `needs_restart`, which wait for a new process. `pending` has a line for
    each driver that applies its new options automatically when the work in it has completed.
    """

    ok: bool
    at: WallTime
    summary: str
    changes: list[OptionChange] = []
    steps: list[ReloadStep] = []
    needs_restart: list[OptionChange] = []
    problems: list[str] = []
    pending: list[str] = []
