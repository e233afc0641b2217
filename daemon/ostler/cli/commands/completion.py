"""`ostler completion`: the script with which a shell completes the command."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.shell_completion import completion_script

app = kit.app(group=False)


class Shell(StrEnum):
    """The shells for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="The shell", show_default=False)]) -> None:
    """Print the script with which a shell completes `ostler`.

    Load it in the shell's start file: `eval "$(ostler completion bash)"`, the same for zsh, `ostler completion fish |
    source` for fish; or write it to the directory from which the shell loads completions. Commands of plugins are
    completed as well.
    """
    print(completion_script(shell), end="")  # noqa: T201 - the command's output
