"""The check of `test_schemathesis`: no status of the 5xx but those that the request itself asked for.

Loaded by the command `schemathesis`, by its environment variable SCHEMATHESIS_HOOKS.
"""

from __future__ import annotations

import schemathesis

_SHORTEST_DEADLINE = 5.0
"""Seconds; with less, that the deadline passes is the right answer."""


@schemathesis.check
def no_failure_of_the_server(ctx, response, case):
    if response.status_code < 500:
        return
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    if response.status_code == 504 and _seconds(headers.get("request-timeout")) < _SHORTEST_DEADLINE:
        return
    if response.status_code == 501 and "FeatureNotSupported" in response.text:
        return  # a method that cannot be submitted
    raise AssertionError(f"status {response.status_code}: {response.text[:2000]}")


def _seconds(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return 60.0
