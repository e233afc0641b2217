"""The option of commands that ask; apart from `confirmation`, because typer takes 40 ms."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation")]
