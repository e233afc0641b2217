from __future__ import annotations

from http_harness import blocker, serve

__all__ = ["blocker", "serve"]
