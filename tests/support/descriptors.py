"""What this process holds open."""

from __future__ import annotations

from pathlib import Path


def open_descriptors() -> int:
    """Return how many descriptors this process has open, the one that reads the list among them."""
    return len(list(Path("/proc/self/fd").iterdir()))
