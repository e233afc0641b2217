"""Runs periodic tasks."""

from __future__ import annotations


class PeriodicScheduler:
    """One heap and one timer for the periodic tasks of all services."""
