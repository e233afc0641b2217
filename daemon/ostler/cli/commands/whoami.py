"""`ostler whoami`: who the daemon takes this user for."""

from __future__ import annotations

from ostler.cli import kit
from ostler.types import CONTROL_TOPIC, CallerIdentity, Json

app = kit.app(group=False)


@app.command()
@kit.view
@kit.shows(CallerIdentity)
def whoami() -> None:
    """Show who the daemon takes you for, and your role."""
    with kit.client() as client:
        caller: CallerIdentity = client.on(type=CallerIdentity).call(CONTROL_TOPIC, "whoami")
    if kit.json_wanted():
        kit.emit(caller)
        return
    fields: dict[str, Json] = {"name": caller.name, "role": caller.role}
    if caller.key or caller.principal:
        fields |= {"key": caller.key} if caller.key else {"principal": caller.principal}
    else:
        fields |= {"uid": caller.uid, "gid": caller.gid}
    fields |= {"acts for host": caller.host} if caller.host else {}
    kit.show_fields(fields)
