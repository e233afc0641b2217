"""`ostler token`: secrets for callers that come another way than by a socket, such as over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.config.units import format_seconds, parse_seconds
from ostler.errors import InvalidInput
from ostler.manager_types import NewToken, TokenStatus
from ostler.types import CONTROL_TOPIC, Role

app = kit.app(help="Create, list and revoke tokens for callers over HTTP.")

_NameArgument = Annotated[str, typer.Argument(help="The token's name", show_default=False)]
_COLUMNS = [
    kit.Column("name", priority=0, key=True),
    kit.Column("role", priority=0),
    kit.Column("state", lambda token: "expired" if token.is_expired else "valid", priority=1),
    kit.Column(
        "expires", lambda token: kit.human_time(token.expires_at) if token.expires_at else "never", priority=0,
        min_width=19,
    ),
    kit.Column("last used", lambda token: kit.human_age(token.last_used_at), priority=1, min_width=11),
    kit.Column("created", lambda token: kit.human_time(token.created_at), priority=2, min_width=19),
    kit.Column("by", "made_by", priority=2),
]  # fmt: skip


@app.command()
@kit.shows(NewToken)
def new(
    name: _NameArgument,
    role: Annotated[Role, typer.Option(help="The role that it gives; no higher one than yours")] = Role.VIEWER,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="Time until it expires, such as 12h or 90d, or `never`")
    ] = "90d",
) -> None:
    """Create a token, and print its secret once.

    The secret stands alone on standard output: `ostler token new ci > ci.token`. The daemon keeps only a hash of it. A
    program sends it as `Authorization: Bearer SECRET`.
    """
    lifetime = _parse_lifetime(expires)
    with kit.client() as client:
        token: NewToken = client.on(type=NewToken).call(
            CONTROL_TOPIC, "token.create", name=name, role=str(role), lifetime=lifetime
        )
    if kit.json_wanted():
        kit.emit(token)
        return
    until = f"expires in {format_seconds(lifetime, units=2)}" if lifetime else "never expires"
    if not kit.is_quiet():
        kit.warn(f"Token {token.name} has the role {token.role} and {until}. Its secret is not shown again:")
    kit.say(token.secret)


@app.command("list")
@kit.view
@kit.shows(TokenStatus, many=True)
def list_tokens() -> None:
    """List the tokens of this host; secrets are not known."""
    with kit.client() as client:
        tokens = client.on(type=list[TokenStatus]).call(CONTROL_TOPIC, "token.list")
    kit.show_table(tokens, _COLUMNS, empty="There are no tokens.")


@app.command()
@kit.shows(TokenStatus)
def revoke(name: _NameArgument) -> None:
    """Revoke a token at once.

    Whoever has it is refused from now on, and what it has in progress ends.
    """
    with kit.client() as client:
        token: TokenStatus = client.on(type=TokenStatus).call(CONTROL_TOPIC, "token.revoke", name=name)
    if kit.json_wanted():
        kit.emit(token)
        return
    kit.confirm_done(f"Token {token.name} was revoked.")


def _parse_lifetime(text: str) -> float:
    if text == "never":
        return 0.0
    seconds = parse_seconds(text)
    if seconds <= 0:
        raise InvalidInput("a token cannot expire before it is used", hint="use a time such as 90d, or `never`")
    return seconds
