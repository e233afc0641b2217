"""The options of a mount with `app = "ui"`."""

from __future__ import annotations

from ostler import Field, Seconds
from ostler_http.application import AppOptions


class UiOptions(AppOptions):
    """The options of the web page."""

    session_idle: Seconds = Field(
        "4h", gt=0, help="A session ends when nobody has used it for this long", reload="live"
    )
    session_lifetime: Seconds = Field(
        "24h", gt=0, help="A session ends this long after its login, however much it is used", reload="live"
    )
    max_sessions: int = Field(
        200,
        ge=1,
        help="Maximum number of sessions; of the caller with most of them, the one that was not used for longest ends",
        reload="live",
    )
    login_failures: int = Field(
        10, ge=1, help="Failed logins from one address within a minute before it has to wait", reload="live"
    )
    log_lines: int = Field(
        300,
        ge=0,
        le=100_000,
        help="How many of the last lines of the log the page has when it is opened",
        reload="live",
    )
    max_live: int = Field(
        100,
        ge=1,
        help="Maximum number of open pages that are kept up to date, half of them for one caller; others are reloaded "
        "by hand",
        reload="live",
    )
