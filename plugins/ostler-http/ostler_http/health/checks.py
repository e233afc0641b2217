"""What each of the endpoints checks, and what it says of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ostler_http.health.daemon_health import Health, ServiceHealth


class Check(NamedTuple):
    """One thing that was checked.

    Attributes:
        name: What it is about: `watchdog`, `start`, `service lamp`.
        ok: Whether it is well.
        matters: Whether it decides the verdict.
        why: What is wrong; may also be there when it is well enough.
    """

    name: str
    ok: bool
    matters: bool = True
    why: str = ""


class Verdict(NamedTuple):
    """The answer of an endpoint."""

    ok: bool
    checks: list[Check]


def live(health: Health) -> Verdict:
    """Return whether the daemon lives: its loop answers, and the watchdog waits for nothing."""
    return Verdict(health.live, [_daemon(health), *_watchdog(health)])


def started(health: Health) -> Verdict:
    """Return whether the start has ended."""
    why = "; ".join(health.waiting_for)
    return Verdict(health.started, [_daemon(health), Check("start", health.started, why=why and f"waiting for {why}")])


def ready(health: Health) -> Verdict:
    """Return whether the daemon can work: it lives, has started, is not stopping, and required services work."""
    checks = [_daemon(health), *_watchdog(health), *started(health).checks[1:]]
    stopping = health.state in ("draining", "stopped")
    checks.append(Check("stop", not stopping, why="the daemon is stopping" if stopping else ""))
    checks += [_service(each) for each in health.services]
    return Verdict(health.ready, checks)


def service_ready(health: Health, topic: str) -> Verdict | None:
    """Return whether one service can work; None when there is none of that name."""
    if health.state == "unknown":
        return Verdict(ok=False, checks=[_daemon(health)])
    for service in health.services:
        if service.topic == topic:
            own = [
                Check(f"{topic}: {about}", ok=True, matters=False, why=why) for about, why in service.evidence.items()
            ]
            return Verdict(service.ready, [_service(service, matters=True), *own])
    return None


def _daemon(health: Health) -> Check:
    is_known = health.state != "unknown"
    return Check("daemon", is_known or health.live, why="" if is_known else "; ".join(health.why))


def _watchdog(health: Health) -> Iterator[Check]:
    if health.state != "unknown":
        yield Check("watchdog", not health.stale, why="; ".join(health.stale))


def _service(service: ServiceHealth, *, matters: bool = False) -> Check:
    why = service.why or "; ".join(service.evidence.values())
    text = f"{service.state}{f': {why}' if why else ''}" if not service.ready or service.evidence else ""
    return Check(f"service {service.topic}", service.ready, matters or service.required, text)
