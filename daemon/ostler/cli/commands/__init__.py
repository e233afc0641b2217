"""The commands of `ostler`, one module each with its typer `app`; `ostler.cli.command_tree.COMMANDS` lists them.

A command imports what it needs itself, and nothing that only another command needs.
"""
