"""The options of a volume service."""

from __future__ import annotations

from ostler import Field, ManagerOptions, Seconds, Size


class VolumeOptions(ManagerOptions):
    """The options of a volume service."""

    check_interval: Seconds = Field(
        60, gt=0, help="How often records are compared with the files on the backends", reload="live"
    )
    scheduler: str = Field(
        "scheduler",
        help="Topic of the service that chooses the backend of a volume created without one; empty: choose by space",
        reload="live",
    )
    placement_attempts: int = Field(
        3,
        ge=1,
        le=20,
        help="How many backends are tried for a volume created without one, if chosen backends refuse it",
        reload="live",
    )
    state_reserve: Size = Field(
        "32MiB",
        help="Space that is reserved for the database on a file system that it shares with a backend",
        reload="live",
    )
    upload_timeout: Seconds = Field(
        60, gt=0, help="An upload is cancelled if it receives no data for this long", reload="live"
    )
